"""A run that is done, opened for use: its model, its parameters, its tokenizer.

One process of a job can open a run while the others wait, since by default it is laid on that process's own devices. Only
what a model is judged by is read, and nothing in the folder is touched: a training may be going on in it.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from model.adapt import DoRA, LoRA
from model.adapter_tree import over
from model.decoder import Model, own
from model.errors import CheckpointError
from model.freeze import Freezing
from model.new_tokens import newest
from model.quantize import Quantize
from model.tokenizer import Tokenizer
from train.artifact import Store, digest
from train.build import Built, begun, build
from train.edits import join
from train.optimizer import Average, averaged
from train.published import Published
from train.saving import reading, shelf
from train.types import Frozen, Params, State

if TYPE_CHECKING:
  from train.run import Parent, Run


EDITED = 1       # what is folded into the key of a run's seed for its edits


class Trained(NamedTuple):
  """What a run left, or others."""

  run: 'Parent'
  model: Model
  params: Params
  tokenizer: Tokenizer
  step: int


def load(run: 'Parent', store: Store, devices: list[jax.Device] | None = None, base: Params | None = None) -> Trained:
  """The newest verified parameters of a run, on `devices`: this process's own, or those of a job that opens it together.

  With `base`, the plain tree of a model that lies there already, the run's adapters are laid over that: see `same_base`.
  Raises: CheckpointError if it holds none.
  """
  devices = jax.local_devices() if devices is None else devices
  if isinstance(run, Published):
    return Trained(run, *run.load(store, devices), run.vocabulary.load(store), 0)
  built = opened(run, devices)
  folder = store.folder(run) / 'checkpoints'
  look = shelf.look(folder)
  if not look.seals and not look.lost:
    raise CheckpointError('checkpoint.none', str(folder), f'{run.name} has not saved anything yet', 'launch it first')
  state, _ = reading.load(folder, judged_by(built.abstract))
  learned = jax.tree.map(lambda leaf, like: leaf.astype(like.dtype), params_of(state), built.abstract.params)
  if base is not None:
    params = learned | over(own(learned), base)
  else:
    params = join(learned, foundation(run, built, store, devices)[1] if built.frozen else {})
  return Trained(run, built.model, params, run.vocabulary.load(store), int(state.step))


def same_base(one: 'Run', other: 'Run') -> bool:
  """Whether the adapters of two runs lie over the same frozen weights, so that those need to be held once alone."""
  def base(run: 'Run') -> tuple[str, ...]:
    if newest(run.lineage_of_edits) or any(isinstance(edit, Freezing) for edit in run.edits):
      return ()
    before = [digest(edit) for edit in run.edits if isinstance(edit, Quantize)]
    return (digest(run.restore), *before) if any(isinstance(edit, LoRA) for edit in run.edits) else ()

  return base(one) == base(other) != () and not any(isinstance(edit, DoRA) for edit in (*one.edits, *other.edits))


def foundation(run: 'Run', built: Built, store: Store, devices: list[jax.Device]) -> tuple[Params | None, Frozen]:
  """What a run begins with: the parameters that learn (None: born of its seed) and those that never change.

  The latter are its parent's, edited again in the same way, and in no checkpoint of its own. The parent is laid on the
  run's mesh.
  """
  if run.restore is None:
    return None, {}
  params = load(replace(run.restore, mesh=run.mesh), store, devices).params
  key = jax.random.fold_in(jax.random.key(run.seed), EDITED)
  return begun(built, run.edits, run.lineage_of_edits, params, key) if run.lineage_of_edits else (params, {})


def beside(run: 'Run', store: Store, devices: list[jax.Device]) -> Frozen:
  """The models that the run's objective reads beside its own, by name, laid on the run's mesh."""
  return {name: load(replace(parent, mesh=run.mesh), store, devices).params for name, parent in run.objective.beside().items()}


def opened(run: 'Run', devices: list[jax.Device]) -> Built:
  """The run's functions, on its own mesh shape where that fits the devices, else with its parameters cut over them all."""
  return build(run.model, run.objective, run.optimizer, run.steps, batch=len(devices), length=run.rows.length,
               compute=run.compute, mesh=run.mesh.fitted(devices), edits=run.lineage_of_edits, origin=run.origin,
               devices=devices)


def judged_by(state: State) -> State:
  """The step and what `params_of` takes of a state; all else is None, and so is never read."""
  average = jax.tree.map(lambda leaf: leaf if _is_average(leaf) else None, state.opt_state, is_leaf=_is_average)
  kept: dict[str, Any] = {'opt_state': average, 'key': None} | ({} if averaged(average) is None else {'params': None})
  return replace(state, **kept)


def params_of(state: State) -> Params:
  """The parameters to judge a model by: their moving average where the optimizer keeps one."""
  average = averaged(state.opt_state)
  return state.params if average is None else average


def _is_average(leaf: object) -> bool:
  return isinstance(leaf, Average)
