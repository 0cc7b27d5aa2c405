"""Summaries as a task: ROUGE of what a model writes against what a person wrote, beside that of the text's first sentences.

Lin 2004, "ROUGE", by the package `rouge-score` (Google's, which papers report): F1 of words, pairs of words and the longest
common subsequence, words stemmed. The beginning of a text is the baseline that news summaries seldom beat (See et al. 2017).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from model.chat import Message, Template
from model.errors import ConfigError
from train.artifact import Store, how
from train.data.corpus import Corpus
from train.data.document import Split
from train.eval.items import check_counts, chosen, named
from train.eval.replying import Replying, check_answers, template_for
from train.eval.task import Taken, Task
from train.run import Parent
from train.trained import Trained

SUMMARY = 'summary'        # in a document's meta
KINDS = {'rouge_1': 'rouge1', 'rouge_2': 'rouge2', 'rouge_l': 'rougeL'}     # our names and the package's


@dataclass(frozen=True, kw_only=True)
class Summarisation(Task):
  """Documents of `texts`, after what `asks` for in one message of the user; their meta has the summary of a person.

  A text that is too long for `replying` counts as summarised with nothing. `lead_rouge_l` is of its first `lead` sentences.
  """

  texts: Corpus
  splits: tuple[Split, ...] = ('heldout',)
  asks: str = 'Summarise the following text in one sentence.'
  lead: int = 3
  items: int = 100
  longest: int = 4000                     # bytes of a text; longer ones are left out
  template: Template | None = None        # None: that of the published model that a run comes from
  replying: Replying = Replying(tokens=64, prompt_tokens=1024)
  shown: int = how(6)

  figures: ClassVar = ('rouge_l', 'rouge_1', 'rouge_2', 'lead_rouge_l')

  def __post_init__(self):
    check_counts(items=self.items, longest=self.longest, lead=self.lead)

  def check(self, run: Parent) -> None:
    check_answers(run, self.template, self.name)

  def take(self, trained: Trained, store: Store) -> Taken:
    """Columns 'rouge_1', 'rouge_2', 'rouge_l', 'lead_rouge_l' and 'ended'."""
    score = rouge()
    asked = chosen(self.texts, store, self.splits, self.items, self.longest, SUMMARY)
    talks = [(Message('user', f'{self.asks}\n\n{document.text}'),) for document in asked]
    replies = self.replying(trained, template_for(self.template, trained.run, self.name), talks)
    said = ['' if each is None else each.text.strip() for each in replies]
    found = [score(text, document.meta[SUMMARY]) for text, document in zip(said, asked)]
    leads = [score(first(document.text, self.lead), document.meta[SUMMARY])['rouge_l'] for document in asked]
    columns = {name: np.array([each[name] for each in found]) for name in KINDS} | {
        'lead_rouge_l': np.array(leads), 'ended': np.array([float(each is not None and each.ended) for each in replies])}
    shown = tuple({'question': document.text, 'answer': text, 'wanted': document.meta[SUMMARY]}
                  for document, text in zip(asked[:self.shown], said))
    return Taken(named(asked), columns, shown=shown)


def rouge() -> Callable[[str, str], dict[str, float]]:
  """F1 of what is said against a reference, of each kind. Raises: ConfigError where the package is not installed."""
  try:
    from rouge_score.rouge_scorer import RougeScorer  # brings nltk, a second to load, which only summaries need
  except ImportError as error:
    raise ConfigError('config.no-rouge', 'a task of summaries', f'the package rouge-score is not here: {error}',
                      'pip install rouge-score') from None
  scorer = RougeScorer(list(KINDS.values()), use_stemmer=True)

  def score(said: str, reference: str) -> dict[str, float]:
    found = scorer.score(reference, said)
    return {name: float(found[kind].fmeasure) for name, kind in KINDS.items()}

  return score


def first(text: str, sentences: int) -> str:
  """The first sentences of a text: up to full stops, question or exclamation marks with a capital or nothing behind them."""
  return ' '.join(re.split(r'(?<=[.!?])\s+(?=[A-Z"\'(])', text.strip())[:sentences])
