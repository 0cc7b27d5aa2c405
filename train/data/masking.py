"""Masked-LM rows: some tokens are hidden, changed or kept, and have to be named from both sides.

Devlin et al. 2019, with the choice made anew each epoch (Liu et al. 2019). A fixed share of a row's tokens is chosen,
rather than each by a coin, so that a short row is never left without a target.
"""

from dataclasses import dataclass

import numpy as np

from model.errors import ConfigError
from train.artifact import encode
from train.data.shuffle import draws, fractions, key

Row = dict[str, np.ndarray]


@dataclass(frozen=True)
class Masking:
  """How much of a row is chosen, and what becomes of the chosen: hidden, replaced by any text token, or else kept."""

  rate: float = 0.15                     # of the tokens that stand for text
  hidden: float = 0.8
  replaced: float = 0.1

  def __post_init__(self):
    if not 0 < self.rate <= 1:
      raise ConfigError('config.out-of-range', f'masking.rate = {self.rate}', 'it is the share of tokens to foretell',
                        'use more than 0 and at most 1; 0.15 is usual')
    if min(self.hidden, self.replaced) < 0 or self.hidden + self.replaced > 1:
      raise ConfigError('config.out-of-range', f'masking.hidden = {self.hidden}, masking.replaced = {self.replaced}',
                        'they are shares of the chosen tokens; the rest is kept', 'use shares of at most 1 together')


class Corrupt:
  """The stage of the pipeline: a row of `length + 1` tokens becomes one of `length`, corrupted, with its targets.

  A function of (seed, record) alone, where the record counts rows through all epochs.
  """

  def __init__(self, masking: Masking, seed: int, bytes_of: np.ndarray, mask_id: int):
    self.masking, self.seed, self.mask_id = masking, seed, mask_id
    self.is_text = bytes_of > 0
    self.texts = np.flatnonzero(self.is_text).astype(np.int32)
    self.definition = encode(masking) | {'seed': seed}

  def __call__(self, row: Row) -> Row:
    """tokens, segments, targets i32[L], mask f32[L] (1 = was chosen); at least one target where there is any text."""
    targets, segments = row['tokens'][:-1], row['segments'][:-1]
    chance = key(self.seed, 'masking', int(row['record']))
    eligible = np.flatnonzero(self.is_text[targets] & (segments > 0))
    count = min(len(eligible), max(1, round(self.masking.rate * len(eligible))))
    chosen = eligible[np.argsort(draws(chance, len(eligible)), kind='stable')[:count]]
    tokens, mask = targets.copy(), np.zeros(len(targets), np.float32)
    tokens[chosen] = self._corrupted(targets[chosen], chance + 1)
    mask[chosen] = 1.0
    return row | {'tokens': tokens, 'segments': segments, 'targets': targets, 'mask': mask}

  def _corrupted(self, targets: np.ndarray, chance: int) -> np.ndarray:
    fate = fractions(key(chance, 'fate'), len(targets))
    others = self.texts[draws(key(chance, 'others'), len(targets)) % np.uint64(len(self.texts))]
    replaced = fate < self.masking.hidden + self.masking.replaced
    return np.where(fate < self.masking.hidden, self.mask_id, np.where(replaced, others, targets))
