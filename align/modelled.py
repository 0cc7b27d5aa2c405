"""A reward model (or cost model) as a reward of rollouts: its number for the conversation up to the end of an answer.

    liked = Run(name='liked', restore=chat, rows=PairRows(pairs), objective=RewardModel(), edits=(Score(),), ...)
    Rollouts(rewards=(Part('liked', Modelled(Scale(name='liked-scale', run=liked))),), ...)
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from align.batch_means import in_batches
from align.pair_rows import PairRows
from align.reference import all_rows
from align.reward import RewardModel, score
from align.rewards import Answer, Reward, Scores
from align.sampler import laid, placed
from model.adapter_tree import detach
from model.decoder import Model, own
from model.errors import ConfigError, DataError
from model.generate import round_up
from model.sharding import pin
from train.artifact import Artifact, Store, digest, how, read_json, write_json
from train.data.pipeline import Placement
from train.run import Run
from train.trained import load, same_base
from train.types import Params, Setting

SCALE = 'scale.json'


def scorer(model: Model) -> Any:
  """A jitted function of (params, tokens_RL, segments_RL): the reward of each row, f32[R]."""
  def scores(params: Params, tokens_RL: jax.Array, segments_RL: jax.Array) -> jax.Array:
    return pin(score(params, model.hidden(params, tokens_RL, segments_RL), segments_RL), None)

  return jax.jit(scores)


@dataclass(frozen=True, kw_only=True)
class Scale(Artifact):
  """The mean and the standard deviation of a reward model's rewards, over both sides of pairs that it learnt from.

  Training leaves the mean anywhere, since only differences count in it. The folder's `scale.json` holds both numbers.
  """

  run: Run
  pairs: int = 1000                   # how many pairs, the first ones
  batch: int = how(16)

  def __post_init__(self):
    if not isinstance(self.run.objective, RewardModel) or not isinstance(self.run.rows, PairRows):
      raise ConfigError('config.reward', f'run = {self.run.name}', f'its objective is {type(self.run.objective).__name__}',
                        'give a run that learnt as a RewardModel')

  def make(self, folder: Path, store: Store) -> None:
    """Scores the pairs and writes `scale.json`."""
    assert isinstance(self.run.rows, PairRows)
    trained, pairs = load(self.run, store), self.run.rows.pairs.open(store, 'train')
    score_of, found = scorer(trained.model), []
    some = (row for _, row in zip(range(self.pairs), all_rows(pairs, self.run.rows.length)))
    for lot in in_batches(some, self.batch):
      tokens_RL, segments_RL = (lot[name].reshape(-1, lot[name].shape[-1]) for name in ('tokens', 'segments'))
      rewards_R = np.asarray(score_of(trained.params, tokens_RL, segments_RL))
      found.append(rewards_R[segments_RL[:, 0] > 0])
    rewards = np.concatenate(found).astype(np.float64)
    write_json(folder / SCALE, {'mean': float(rewards.mean()), 'deviation': float(rewards.std()), 'sides': len(rewards)})

  def open(self, store: Store) -> tuple[float, float]:
    """(mean, deviation). Raises: DataError if the file is damaged."""
    found = read_json(store.find(self) / SCALE)
    if not isinstance(found, dict) or not all(isinstance(found.get(name), float) for name in ('mean', 'deviation')):
      raise DataError('data.damaged', str(store.find(self) / SCALE), 'it has no mean and deviation',
                      'delete the folder and launch again to make it anew')
    return found['mean'], found['deviation']


@dataclass(frozen=True)
class Modelled(Reward):
  """(reward - mean) / deviation of the whole conversation, its ids as they were sampled, with mean and deviation of `scale`."""

  scale: Scale

  def open(self, setting: Setting) -> Scores:
    """Raises: ConfigError if the reward model knows other ids than the policy."""
    run = self.scale.run
    if digest(run.rows.vocabulary) != digest(setting.run.rows.vocabulary):
      raise ConfigError('config.other-vocabulary', f'reward model {run.name}', f'it knows the ids of '
                        f'{run.rows.vocabulary.name}', 'use one that learnt in the policy\'s vocabulary')
    mean, deviation = self.scale.open(setting.store)
    base = detach(own(setting.frozen['base'])) if same_base(run, setting.run) else None
    trained = setting.once(digest(run), lambda: load(replace(run, mesh=setting.run.mesh), setting.store, setting.devices, base))
    place, score_of = Placement(setting.built.mesh, setting.run.batch), scorer(trained.model)

    def scores(answers: Sequence[Answer]) -> np.ndarray:
      columns = laid(answers, round_up(max(len(answer.prompt) + len(answer.ids) for answer in answers)))
      with jax.set_mesh(setting.built.mesh):          # a jury asks from a thread of its own
        rewards = _scored(score_of, trained.params, columns, place)
      return (rewards[:len(answers)] - np.float32(mean)) / np.float32(deviation or 1.0)

    return scores

  def holds(self, run: Run) -> Any:
    """The model's parameters; where they are adapters over the policy's own base, the adapters alone."""
    built = replace(self.scale.run, mesh=run.mesh).build()
    return built.abstract.params if same_base(self.scale.run, run) else (built.abstract.params, built.frozen)


def _scored(score_of: Any, params: Params, columns: dict[str, np.ndarray], place: Placement) -> np.ndarray:
  """The rewards of all rows, and after them of those that fill up the last batch, f32."""
  read = {name: columns[name] for name in ('tokens', 'segments')}
  return np.concatenate([jax.device_get(score_of(params, lot['tokens'], lot['segments'])) for lot in placed(read, place)])
