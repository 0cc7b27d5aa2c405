"""Labels as token files; a row has an answer, and beside it the answer of another label after the same prompt (for KTO's KL).

Document i is label i, prompt and all (`align.answer_tokens`).

    train.good.npy   u8[labels]: 1 where the answer was found good          labels.json

Letters: S the two sides (own answer, another's), L positions.
"""

import hashlib
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from align.answer_tokens import AnswerTokens, Judgement, answer_of, side_by_side
from align.fit_answers import fit_answers
from align.labels import Criticised, Halves, Label, Single
from model.chat import Rendered
from model.errors import DataError
from model.tokenizer import Tokenizer
from train.artifact import Store
from train.data.document import Split
from train.data.shuffle import key, permutation
from train.data.token_files import TokenSplit
from train.data.visits import Row


@dataclass(frozen=True)
class LabelSplit:
  """The labels of a split, opened and verified; the tokens stay in a memory-mapped file."""

  tokens: TokenSplit
  good: np.ndarray               # u8[labels]
  seed: int
  sha256: str                    # of tokens, labels and the seed

  def __len__(self) -> int:
    return len(self.good)

  def row(self, label: int, length: int) -> Row:
    """tokens and segments i32[2, length], mask f32[2, length], label f32[]: the own answer first, then another's."""
    sides = (self.rendered(label), self.mismatched(label, length))
    return side_by_side(sides, length) | {'label': np.asarray(self.good[label], np.float32)}

  def rendered(self, label: int) -> Rendered:
    """A prompt and its own answer."""
    return answer_of(self.tokens, label)

  def mismatched(self, label: int, length: int) -> Rendered:
    """The same prompt and the answer of another label, cut off at `length`."""
    sides = [self._parted(label), self._parted(self.partner(label))]
    prompt, answer = sides[0][0], sides[1][1]
    ids, mask = (np.concatenate(both)[:length] for both in zip(prompt, answer))
    return Rendered(ids, mask)

  def partner(self, label: int) -> int:
    """The label whose answer stands beside: the next one, in an order that the seed decides, with a different answer.

    Raises: DataError if all answers are equal.
    """
    place, own = int(self._places[label]), self._parted(label)[1].ids
    for step in range(1, len(self)):
      other = int(self._order[(place + step) % len(self)])
      if not np.array_equal(self._parted(other)[1].ids, own):
        return other
    raise DataError('label.one-answer', f'{self.tokens.split} labels in {self.tokens.folder}', 'all answers are alike, and '
                    'each is to be compared with another', 'add labels of other answers')

  def describe(self, label: int) -> str:
    """Where a label is from, for a person."""
    return self.tokens.describe(label)

  @cached_property
  def _order(self) -> np.ndarray:
    return permutation(key(self.seed, 'mismatched', self.tokens.split), len(self))

  @cached_property
  def _places(self) -> np.ndarray:
    return np.argsort(self._order)

  def _parted(self, label: int) -> tuple[Rendered, Rendered]:
    """(what stands before the answer, the answer and the rest)."""
    ids, mask = self.rendered(label)
    first = int(np.argmax(mask))
    return Rendered(ids[:first], mask[:first]), Rendered(ids[first:], mask[first:])


@dataclass(frozen=True, kw_only=True)
class LabelTokens(AnswerTokens):
  """The labels that `labelling` makes of a corpus, rendered by a template, none of more than `longest` tokens."""

  labelling: Single | Halves | Criticised = Single()
  seed: int = 0                  # of the order in which labels get each other's answers

  noun: ClassVar = 'label'
  column: ClassVar = 'good'
  kind: ClassVar = np.uint8
  sides: ClassVar = 1

  @property
  def derivation(self) -> Single | Halves | Criticised:
    return self.labelling

  def open(self, store: Store, split: Split) -> LabelSplit:
    """The labels of a split. Raises: DataError if they are not as they were written."""
    tokens, good, mark = self.judged(store, split)
    return LabelSplit(tokens, good, self.seed, hashlib.sha256(f'{mark}{self.seed}'.encode()).hexdigest())

  def judgement(self, tokenizer: Tokenizer, id: str, judged: Label, counts: Counter[str]) -> Judgement | None:
    """Whether the answer is good, and it in tokens; None if no token of it is left."""
    fit = fit_answers(self.template, tokenizer, judged.prompt, [judged.answer], self.longest, id)
    if fit is None:
      counts[f'labels left out: no answer within {self.longest} tokens'] += 1
      return None
    counts.update({'labels': 1, 'good': int(judged.good), 'labels with oldest turns left out': int(fit.turns > 0),
                   'labels with the end of the answer cut off': int(fit.tokens > 0), 'tokens cut off': fit.tokens})
    return Judgement(judged.good, fit.answers)
