"""The accuracy of a reward model or preference-tuned policy on held-out pairs, beside that of choosing the longer answer.

Pairs that share a conversation are not independent, so the error of an accuracy is larger than the number of pairs suggests.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rich

from align.batch_means import Means, in_batches
from align.pair_rows import PairRows
from align.reference import Opened, all_rows
from model.errors import ConfigError, DataError
from train.artifact import Artifact, Store, how, write_json
from train.run import Run
from train.trained import load

AGREEMENT = 'agreement.json'


@dataclass(frozen=True, kw_only=True)
class Agreement(Artifact):
  """How often a run prefers the same answer as the judges did, over all held-out pairs.

  Its folder has `agreement.json`: the number of pairs, the share of them whose longer answer was preferred, and the means
  of the run's loss and metrics.
  """

  run: Run
  batch: int = how(16)             # pairs at a time

  def __post_init__(self):
    if self.batch < 1:
      raise ConfigError('config.out-of-range', f'batch = {self.batch}', 'it counts pairs', 'use 1 or more')

  def make(self, folder: Path, store: Store) -> None:
    """Writes `agreement.json`. Raises: DataError if no pair is held out."""
    assert isinstance(self.run.rows, PairRows)
    pairs, length = self.run.rows.pairs.open(store, 'heldout'), self.run.rows.length
    if not len(pairs):
      raise DataError('pair.none', f'held-out pairs of {self.run.name}', 'there is none', 'lower heldout_modulo of the corpus')
    trained = load(self.run, store)
    means = Means(self.run.objective(trained.model))(trained.params, in_batches(all_rows(pairs, length), self.batch))
    result = {'pairs': len(pairs), 'longer': longer(pairs, length), 'means': means}
    write_json(folder / AGREEMENT, result)
    rich.print(f'{self.run.name}: agrees on {means["accuracy"]:.1%} of {len(pairs):,} held-out pairs; the longer answer was '
               f'preferred in {result["longer"]:.1%}')


def longer(pairs: Opened, length: int) -> float:
  """The share of pairs whose chosen side has more tokens of answers, ties half."""
  counts_NP = np.stack([pairs.row(pair, length)['mask'].sum(1) for pair in range(len(pairs))])
  return float((0.5 * (1.0 + np.sign(counts_NP[:, 0] - counts_NP[:, 1]))).mean())
