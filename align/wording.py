"""A reward from words alone: naive Bayes, fitted to the answers of a corpus whose documents are of two kinds.

It is independent of every model, so it shows whether a policy got better at what was meant or only at pleasing its reward
model. It ignores the order of words: an answer of one good word again and again pleases it too.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from align.conversations import from_text
from align.rewards import Answer, Reward, Scores
from model.errors import ConfigError, DataError
from train.artifact import Store
from train.data.corpus import Corpus
from train.data.document import Split
from train.types import Setting


@dataclass(frozen=True)
class Wording(Reward):
  """log p(good | words) - log p(bad | words), nats: multinomial naive Bayes over the last messages of one split."""

  corpus: Corpus
  field: str                           # of a document's meta
  good: str
  bad: str
  split: Split = 'heldout'             # what the policy did not learn from either
  smoothing: float = 1.0

  def __post_init__(self):
    if self.smoothing <= 0 or self.good == self.bad:
      raise ConfigError('config.out-of-range', f'{self.good!r} against {self.bad!r}, smoothing = {self.smoothing}',
                        'two kinds differ, and no word is impossible', 'use smoothing above 0, such as 1')

  def open(self, setting: Setting) -> Scores:
    judge = self.learnt(setting.store)

    def scores(answers: Sequence[Answer]) -> list[float]:
      return [judge(answer.text) for answer in answers]

    return scores

  def learnt(self, store: Store) -> Callable[[str], float]:
    """The log-odds as a function of a text. Raises: DataError if a kind is in no document."""
    counts: dict[str, Counter[str]] = {self.good: Counter(), self.bad: Counter()}
    documents: Counter[str] = Counter()
    for document in self.corpus.documents(store.find(self.corpus), self.split):
      kind = document.meta.get(self.field, '')
      if kind in counts:
        documents[kind] += 1
        counts[kind].update(words(from_text(document.text, f'{document.source}:{document.id}')[-1].content))
    if missing := [kind for kind in counts if not documents[kind]]:
      raise DataError('reward.no-kind', f'{self.corpus.name}, {self.split}: {self.field} = {", ".join(missing)}',
                      'no document says that', 'name a field and two kinds that the corpus has')
    known = set(counts[self.good]) | set(counts[self.bad])
    sums = {kind: each.total() + self.smoothing * len(known) for kind, each in counts.items()}
    odds = {word: math.log((counts[self.good][word] + self.smoothing) / sums[self.good])
            - math.log((counts[self.bad][word] + self.smoothing) / sums[self.bad]) for word in known}
    prior = math.log(documents[self.good] / documents[self.bad])
    return lambda text: prior + sum(odds.get(word, 0.0) for word in words(text))


def words(text: str) -> list[str]:
  """The words of a text, in small letters."""
  return re.findall(r"[a-z']+", text.lower())
