"""Pairs as token files: both sides with their prompts, which tokens are the answer, and the pairs' margins and labels.

Document 2i is the chosen side of pair i, prompt and all, and document 2i + 1 the rejected one (`align.answer_tokens`).

    train.judged.npy   f32[pairs, 2]: margin and label          pairs.json
"""

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from align.answer_tokens import AnswerTokens, Judgement, answer_of, side_by_side
from align.fit_answers import fit_answers
from align.preferences import Given, Pair, Rated
from align.review_pairs import SameFilm
from model.tokenizer import Tokenizer
from train.artifact import Store
from train.data.document import Split
from train.data.token_files import TokenSplit
from train.data.visits import Row


@dataclass(frozen=True)
class PairSplit:
  """The pairs of a split, opened and verified; the tokens stay in a memory-mapped file."""

  tokens: TokenSplit
  judged: np.ndarray             # f32[pairs, 2]: margin, label
  sha256: str                    # of tokens, margins and labels

  def __len__(self) -> int:
    return len(self.judged)

  def row(self, pair: int, length: int) -> Row:
    """tokens and segments i32[2, length], mask f32[2, length], margin and label f32[]: the chosen side first."""
    margin, label = map(np.asarray, self.judged[pair])
    sides = [answer_of(self.tokens, 2 * pair), answer_of(self.tokens, 2 * pair + 1)]
    return side_by_side(sides, length) | {'margin': margin, 'label': label}

  def describe(self, pair: int) -> str:
    """Where a pair is from, for a person."""
    return self.tokens.describe(2 * pair)


@dataclass(frozen=True, kw_only=True)
class PairTokens(AnswerTokens):
  """The pairs that `pairing` makes of a corpus, rendered by a template, no side of more than `longest` tokens."""

  pairing: Given | Rated | SameFilm = Given()

  noun: ClassVar = 'pair'
  column: ClassVar = 'judged'
  kind: ClassVar = np.float32
  sides: ClassVar = 2

  @property
  def derivation(self) -> Given | Rated | SameFilm:
    return self.pairing

  def open(self, store: Store, split: Split) -> PairSplit:
    """The pairs of a split. Raises: DataError if they are not as they were written."""
    tokens, judged, sha256 = self.judged(store, split)
    return PairSplit(tokens, judged, sha256)

  def judgement(self, tokenizer: Tokenizer, id: str, judged: Pair, counts: Counter[str]) -> Judgement | None:
    """Margin, label and both sides in tokens; None if a side has no answer left, or cutting made the sides equal."""
    fit = fit_answers(self.template, tokenizer, judged.prompt, (judged.chosen, judged.rejected), self.longest, id)
    if fit is None or np.array_equal(fit.answers[0].ids, fit.answers[1].ids):
      counts['pairs left out: ' + ('alike once they were cut' if fit else f'no answer within {self.longest} tokens')] += 1
      return None
    counts.update({'pairs': 1, 'pairs with oldest turns left out': int(fit.turns > 0),
                   'pairs with ends of answers cut off': int(fit.tokens > 0), 'tokens cut off': fit.tokens})
    return Judgement((judged.margin, judged.label), fit.answers)
