"""Question answering as a task: exact match and token F1 as in SQuAD, containment, and the marks of a judge.

Rajpurkar et al. 2016, "SQuAD": small letters, no punctuation, no articles, one blank between words; of several wanted answers
the best counts. Exact match asks that an answer is short, so a task says so in its `system` message and shows it by `examples`;
'contains' asks only that the words of a wanted answer stand in what was said, side by side.
"""

import re
import string
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from model.chat import Message, Template
from train.artifact import Store, how
from train.data.corpus import Corpus
from train.data.document import Split
from train.eval.items import check_counts, chosen, named
from train.eval.replying import Replied, Replying, Talk, check_answers, template_for
from train.eval.task import Taken, Task
from train.run import Parent
from train.trained import Trained

WANTED = 'wanted'          # in a document's meta; several wanted answers stand on a line each
SHORT = 'Answer with a few words alone, in no sentence.'

Marking = Callable[[Sequence[Talk], Sequence[str], Sequence[str]], np.ndarray]


class Marker(ABC):
  """Who marks answers beside wanted ones; `align.judged_answers` has one that asks a judge."""

  @abstractmethod
  def open(self, store: Store) -> Marking:
    """A function of talks, answers and wanted answers: f64[N], 0 to 1, NaN where nothing could be read."""


@dataclass(frozen=True, kw_only=True)
class Answers(Task):
  """Documents of `questions` are what is asked; their meta says what is wanted. An answer to a question is one greedy reply.

  A question that is too long for `replying` counts as answered with nothing. With a `marker` there is 'judged' too.
  """

  questions: Corpus
  splits: tuple[Split, ...] = ('heldout',)
  system: str = SHORT
  examples: tuple[tuple[str, str], ...] = ()     # asked and answered before each question
  items: int = 200
  longest: int = 2000                     # bytes of a question; longer ones are left out
  template: Template | None = None        # None: that of the published model that a run comes from
  replying: Replying = Replying()
  marker: Marker | None = None
  shown: int = how(8)

  figures: ClassVar = ('exact_match', 'contains', 'token_f1', 'judged')

  def __post_init__(self):
    check_counts(items=self.items, longest=self.longest)

  def check(self, run: Parent) -> None:
    check_answers(run, self.template, self.name)

  def take(self, trained: Trained, store: Store) -> Taken:
    """Columns 'exact', 'contains', 'token_f1', 'ended' and, with a marker, 'judged'."""
    asked = chosen(self.questions, store, self.splits, self.items, self.longest, WANTED)
    talks = [self.talk(document.text) for document in asked]
    replies = self.replying(trained, template_for(self.template, trained.run, self.name), talks)
    said = [_text(each) for each in replies]
    wanted = [document.meta[WANTED].split('\n') for document in asked]
    columns = {name: np.array([max(alike(text, right) for right in each) for text, each in zip(said, wanted)])
               for name, alike in (('exact', exact), ('contains', contains), ('token_f1', token_f1))}
    columns['ended'] = np.array([float(each is not None and each.ended) for each in replies])
    if self.marker is not None:
      columns['judged'] = self.marker.open(store)(talks, said, [each[0] for each in wanted])
    shown = tuple({'question': document.text, 'answer': text, 'wanted': ' / '.join(right)}
                  for document, text, right in zip(asked[:self.shown], said, wanted))
    return Taken(named(asked), columns, shown=shown)

  def talk(self, question: str) -> Talk:
    """What the model reads."""
    scene = (Message('system', self.system),) if self.system else ()
    before = [message for asked, said in self.examples for message in (Message('user', asked), Message('assistant', said))]
    return *scene, *before, Message('user', question)


def _text(reply: Replied | None) -> str:
  return '' if reply is None else reply.text.strip()


def normalised(text: str) -> str:
  """The text as SQuAD compares it."""
  bare = ''.join(character for character in text.lower() if character not in string.punctuation)
  return ' '.join(re.sub(r'\b(a|an|the)\b', ' ', bare).split())


def exact(said: str, wanted: str) -> float:
  """1 if they are the same once normalised, else 0."""
  return float(normalised(said) == normalised(wanted))


def contains(said: str, wanted: str) -> float:
  """1 if the words of the wanted answer, at least one, occur in the given one side by side, else 0."""
  return float(bool(normalised(wanted)) and f' {normalised(wanted)} ' in f' {normalised(said)} ')


def token_f1(said: str, wanted: str) -> float:
  """F1 of the words that both have, counted with multiplicity; 1 if neither has any."""
  one, other = normalised(said).split(), normalised(wanted).split()
  same = (Counter(one) & Counter(other)).total()
  return float(one == other) if not one or not other else 2 * same / (len(one) + len(other))
