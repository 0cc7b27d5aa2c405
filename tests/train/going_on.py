"""The law of going on after a cut: it is as never to have stopped."""

import shutil

import jax
import numpy as np

from train.artifact import Store
from train.run import Run
from train.trained import load
from train.types import Params


def cut_off(run: Run, store: Store) -> Params:
  """The parameters of a run that is made. Its last save is taken away then, as if it had been killed before."""
  params, folder = load(run, store).params, store.folder(run)
  shutil.rmtree(folder / 'checkpoints' / str(run.steps))
  (folder / 'made.json').unlink()
  return params


def check_goes_on(run: Run, store: Store) -> None:
  """Fails unless it comes to the same bits from the save before its last."""
  params = cut_off(run, store)
  store.make(run)
  jax.tree.map(np.testing.assert_array_equal, load(run, store).params, params)
