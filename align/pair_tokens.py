"""Pairs as tokens on disk: both sides in one template and vocabulary, which tokens are the answer, margins and labels.

The folder of a `PairTokens` has, for each split, the files that `train.data.token_files` describes, in which document
2i is the chosen side of pair i, prompt and all, and document 2i + 1 the rejected one, and beside them

    train.judged.npy   f32[pairs, 2]: margin and label          pairs.json   a sha256 of these for each split
    table.json         what was read, left out and cut

Letters: P the two sides, L positions.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rich

from align.columns import read_column, write_column
from align.conversations import Messages
from align.preferences import Given, Pair, Rated
from align.review_pairs import SameFilm
from model.chat import ChatML, Rendered, Template, check, check_controls, render
from model.errors import ConfigError, DataError
from model.tokenizer import Tokenizer
from train.artifact import Artifact, Store, write_json
from train.data.corpus import TABLE, Corpus
from train.data.document import SPLITS, Split
from train.data.encoding import Encoded
from train.data.token_files import BYTES_OF, MANIFEST, TokenSplit, open_split, write_split
from train.data.visits import Row
from train.data.vocabulary import Vocabulary

PAIRS = 'pairs.json'


class Sides(NamedTuple):
  """A pair in tokens, the mask 1 on the answers alone, and what was cut of it."""

  chosen: Rendered
  rejected: Rendered
  turns: int           # oldest messages of the prompt, left out on both sides
  tokens: int          # cut off the ends of both answers


def fit_pair(template: Template, tokenizer: Tokenizer, pair: Pair, length: int, where: str) -> Sides | None:
  """Both sides as `fit_answers` has them."""
  fit = fit_answers(template, tokenizer, pair.prompt, (pair.chosen, pair.rejected), length, where)
  if fit is None:
    return None
  chosen, rejected = fit.answers
  return Sides(chosen, rejected, fit.turns, fit.tokens)


class Fit(NamedTuple):
  """Answers in tokens, each after the prompt, and what was cut."""

  answers: list[Rendered]
  turns: int           # oldest messages of the prompt
  tokens: int          # off the ends of the answers


def fit_answers(template: Template, tokenizer: Tokenizer, prompt: Messages, answers: Sequence[Messages], length: int,
                where: str) -> Fit | None:
  """All answers in at most `length` tokens after one and the same prompt; None if one of them would be lost as a whole.

  The system message stays; as few of the prompt's oldest turns are left out as will do for all answers. If they are too
  long even after the last question, they lose their ends. Raises: DataError as `check` does.
  """
  for answer in answers:
    check(template, (*prompt, *answer), where)
  scene = prompt[:int(prompt[0].role == 'system')]
  asked = prompt[len(scene):]
  begins = [place for place, message in enumerate(asked) if place == 0 or message.role == 'user'] or [0]
  for begin in begins:
    sides = [_answer(template, tokenizer, (*scene, *asked[begin:]), answer) for answer in answers]
    if max(len(side.ids) for side in sides) <= length:
      break
  cut = [Rendered(side.ids[:length], side.mask[:length]) for side in sides]
  if not all(side.mask.any() for side in cut):
    return None
  return Fit(cut, begin, sum(max(0, len(side.ids) - length) for side in sides))


def _answer(template: Template, tokenizer: Tokenizer, prompt: Messages, side: Messages) -> Rendered:
  """The whole side; answers that the prompt has in it are read, not judged."""
  ids, mask = render(template, tokenizer, (*prompt, *side))
  if any(message.role == 'assistant' for message in prompt):
    mask = np.where(np.arange(len(ids)) < len(render(template, tokenizer, prompt).ids), 0, mask).astype(np.uint8)
  return Rendered(ids, mask)


@dataclass(frozen=True)
class PairSplit:
  """The pairs of a split, open and verified; the tokens lie in a file."""

  tokens: TokenSplit
  judged: np.ndarray             # f32[pairs, 2]: margin, label
  sha256: str                    # of all that is in it

  def __len__(self) -> int:
    return len(self.judged)

  def row(self, pair: int, length: int) -> Row:
    """tokens and segments i32[2, length], mask f32[2, length], margin and label f32[]: the chosen side first."""
    tokens, segments, mask = (np.zeros((2, length), kind) for kind in (np.int32, np.int32, np.float32))
    assert self.tokens.mask is not None, 'pairs are written with a mask'
    for side, begin, end in zip((0, 1), self.tokens.offsets[2 * pair:], self.tokens.offsets[2 * pair + 1:]):
      tokens[side, :end - begin], segments[side, :end - begin] = self.tokens.ids[begin:end], 1
      mask[side, :end - begin] = self.tokens.mask[begin:end]
    margin, label = map(np.asarray, self.judged[pair])
    return {'tokens': tokens, 'segments': segments, 'mask': mask, 'margin': margin, 'label': label}

  def describe(self, pair: int) -> str:
    """Where a pair is from, for a person."""
    return self.tokens.describe(2 * pair)


@dataclass(frozen=True, kw_only=True)
class PairTokens(Artifact):
  """The pairs that `pairing` makes of a corpus, as a template writes them, no side of more than `longest` tokens."""

  corpus: Corpus
  vocabulary: Vocabulary
  pairing: Given | Rated | SameFilm = Given()
  template: Template = ChatML()
  longest: int = 512

  def __post_init__(self):
    if self.longest < 2:
      raise ConfigError('config.out-of-range', f'longest = {self.longest}', 'it counts tokens', 'use 2 or more')
    kinds = self.pairing.stages
    if odd := [stage.name for stage in (*self.corpus.stages, *self.corpus.augment) if not isinstance(stage, kinds)]:
      raise ConfigError('pair.stages', f'corpus {self.corpus.name!r}: {", ".join(odd)}',
                        'its documents are JSON, which these stages would take for prose',
                        f'use {", ".join(kind.__name__ for kind in kinds)} or none: stages=()')

  def make(self, folder: Path, store: Store) -> None:
    """Writes the files. Raises: DataError for a pair that the template refuses, or if none is left to train on."""
    tokenizer = self.vocabulary.load(store)
    check_controls(self.template, tokenizer)
    np.save(folder / BYTES_OF, tokenizer.bytes_of)
    counts: dict[Split, Counter[str]] = {split: Counter() for split in SPLITS}
    sources: list[str] = []
    splits, hashes = {}, {}
    for split in SPLITS:
      judged: list[tuple[float, float]] = []
      sides = self._sides(store, split, tokenizer, judged, counts[split])
      splits[split] = write_split(folder, split, sides, tokenizer.bytes_of, sources)
      hashes[split] = write_column(folder, split, 'judged', np.array(judged, np.float32).reshape(-1, 2))
    write_json(folder / TABLE, counts)
    rich.print(f'pairs {self.name}', *(f'  {split}: {what}: {count:,}' for split in SPLITS
                                       for what, count in counts[split].items() if count), sep='\n')
    if not splits['train']['documents']:
      raise DataError('pair.none', f'pairs {self.name}', f'none is left to train on: {dict(counts["train"])}',
                      'allow for a smaller gap or more tokens, or add data')
    write_json(folder / MANIFEST, {'tokenizer': tokenizer.fingerprint, 'size': tokenizer.size, 'sources': sources,
                                   'controls': tokenizer.controls, 'splits': splits})
    write_json(folder / PAIRS, hashes)

  def open(self, store: Store, split: Split) -> PairSplit:
    """The pairs of a split. Raises: DataError if they are not as they were written."""
    folder = store.find(self)
    tokens = open_split(folder, split)
    judged, wanted = read_column(folder, split, 'judged', PAIRS, (len(tokens.offsets) - 1) // 2)
    return PairSplit(tokens, judged, hashlib.sha256(f'{tokens.sha256}{wanted}'.encode()).hexdigest())

  def _sides(self, store: Store, split: Split, tokenizer: Tokenizer, judged: list[tuple[float, float]],
             counts: Counter[str]) -> Iterator[Encoded]:
    """The sides of each pair that can be judged, chosen then rejected; margins and labels go to `judged`."""
    for id, pair in self.pairing(self.corpus, store.find(self.corpus), split, counts):
      sides = fit_pair(self.template, tokenizer, pair, self.longest, id)
      if sides is None or np.array_equal(sides.chosen.ids, sides.rejected.ids):
        counts['pairs left out: ' + ('alike once they were cut' if sides else f'no answer within {self.longest} tokens')] += 1
        continue
      counts.update({'pairs': 1, 'pairs with oldest turns left out': int(sides.turns > 0),
                     'pairs with ends of answers cut off': int(sides.tokens > 0), 'tokens cut off': sides.tokens})
      judged.append((pair.margin, pair.label))
      for rendered in (sides.chosen, sides.rejected):
        yield Encoded(self.corpus.name, id, rendered.ids, rendered.mask)
