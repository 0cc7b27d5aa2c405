"""A run that is done, opened for use: its model, its parameters, its tokenizer."""

from typing import TYPE_CHECKING, NamedTuple

import jax

from model.decoder import Model
from model.errors import CheckpointError
from model.tokenizer import Tokenizer
from train.artifact import Store
from train.checkpoint import Checkpoints
from train.optimizer import averaged
from train.types import Params, State

if TYPE_CHECKING:
  from train.run import Run


class Trained(NamedTuple):
  """What a run left."""

  run: 'Run'
  model: Model
  params: Params
  tokenizer: Tokenizer
  step: int


def load(run: 'Run', store: Store) -> Trained:
  """The newest verified state of a run, on the run's own mesh shape over the devices that are here.

  Raises: CheckpointError if it holds none.
  """
  built = run.build()
  folder = store.folder(run) / 'checkpoints'
  with jax.set_mesh(built.mesh), Checkpoints(folder) as saves:
    saved = saves.restore(built.abstract)
  if saved is None:
    raise CheckpointError('checkpoint.none', str(folder), f'{run.name} has not saved anything yet', 'launch it first')
  state = saved[0]
  return Trained(run, built.model, params_of(state), run.rows.vocabulary.load(store), int(state.step))


def params_of(state: State) -> Params:
  """The parameters to judge a model by: their moving average where the optimizer keeps one."""
  average = averaged(state.opt_state)
  return state.params if average is None else average
