"""From a run's value to functions and shardings: everything that can be known before a byte of data is read.

Used by the run itself, by `--dry_run`, and by the test that traces and shards every experiment file.
"""

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from model import decoder
from model.config import Compute, Decoder
from model.decoder import Model
from model.edit import Edit
from model.errors import ConfigError
from model.kinds import kinds, muon_dimensions
from model.mup import lr_multipliers
from model.sharding import RULES, MeshShape, shardings, unbox
from train.edits import edited, split, whole
from train.objectives import noted
from train.optimizer import Optimizer, Parts
from train.step import accumulate, born, gradient, make_step
from train.types import Frozen, Key, Objective, State, StepFn

if TYPE_CHECKING:
  from train.run import Parent


class Other(NamedTuple):
  """A model that the objective reads but does not train: a teacher, a reference."""

  config: Decoder
  params: Any                          # shapes, dtypes and shardings


class Built(NamedTuple):
  """A run's pure functions and where its state lies."""

  model: Model
  mesh: Mesh
  init: Callable[[Key], State]         # to be called inside jit
  step: StepFn
  abstract: State                      # shapes, dtypes and shardings of every leaf
  frozen: Frozen                       # likewise of the weights that do not learn: {}, or {'base': ...}
  beside: dict[str, Other]             # the models that the objective reads but does not train

  @property
  def given(self) -> Frozen:
    """What the step gets as `Frozen`: the weights that do not learn, and the models beside."""
    return self.frozen | {name: other.params for name, other in self.beside.items()}


def build(model: Decoder, objective: Objective, optimizer: Optimizer, steps: int, *, batch: int, length: int,
          parts: int = 1, compute: Compute = Compute(), mesh: MeshShape = MeshShape(),
          edits: tuple[Edit, ...] = (), origin: Decoder | None = None, devices: Any = None) -> Built:
  """The model, step, initialiser and shardings of a training of `model`, on a mesh over `devices` (default: all).

  `edits` are all those that turned the parameters of `origin` (default: `model`) into those of `model`, in order.
  Raises: ConfigError where the batch does not divide into parts and data-parallel devices, a row is too long, or the edits
  make another model of the origin.
  """
  grid = fitting(model, batch, length, parts, mesh, devices)
  key = jax.eval_shape(jax.random.key, 0)
  with jax.set_mesh(grid):
    net = decoder.build(model, compute)
    tree = native(model, net, origin, edits)
    boxed, fixed = jax.eval_shape(lambda key: split(edited(edits, tree(key), key), edits), key)
    tx = optimizer(steps, Parts(kinds(boxed), muon_dimensions(boxed), lr_multipliers(model, boxed)))

    def init(key: Key) -> State:
      return born(lambda k: split(edited(edits, unbox(tree(k)), k), edits)[0], key, tx)

    abstract = _place(jax.eval_shape(init, key), shardings(boxed, grid), grid)
    step = make_step(accumulate(gradient(noted(whole(objective(net)))), parts), tx)
    beside = {name: _other(parent, grid) for name, parent in objective.beside().items()}
  return Built(net, grid, init, step, abstract, _laid(fixed, grid), beside)


def _other(parent: 'Parent', mesh: Mesh) -> Other:
  edits, key = parent.lineage_of_edits, jax.eval_shape(jax.random.key, 0)
  tree = native(parent.model, decoder.build(parent.model), parent.origin, edits)
  return Other(parent.model, _laid(jax.eval_shape(lambda key: edited(edits, tree(key), key), key), mesh))


def _laid(boxed: Any, mesh: Mesh) -> Any:
  """The abstract tree without logical names, each leaf with its sharding."""
  return jax.tree.map(lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), unbox(boxed),
                      shardings(boxed, mesh))


def native(model: Decoder, net: Model, origin: Decoder | None, edits: tuple[Edit, ...]) -> Callable[[Key], Any]:
  """The initialiser of the boxed parameters that the edits start from. Raises: ConfigError if they do not lead to `model`."""
  if origin is None or origin == model:
    return net.init
  meant = reduce(lambda config, edit: edit.model(config), edits, origin)
  first = decoder.build(replace(origin, param_dtype=model.param_dtype))
  if differ := _misshapen(net, decoder.build(meant)):
    raise ConfigError('config.other-model', f'model of the run: {differ}', f'its parent, edited, is {meant}',
                      'set model to that')
  return first.init


def _misshapen(ours: Model, theirs: Model) -> str:
  """Names the first parameter that only one of the models has, or that differs in shape; '' if there is none."""
  mine, others = ({jax.tree_util.keystr(path, simple=True, separator='/'): leaf.shape for path, leaf in
                   jax.tree_util.tree_leaves_with_path(unbox(jax.eval_shape(net.init, jax.eval_shape(jax.random.key, 0))))}
                  for net in (ours, theirs))
  return next((f'{name} is {mine.get(name)} and not {others.get(name)}' for name in sorted({*mine, *others})
               if mine.get(name) != others.get(name)), '')


def fitting(model: Decoder, batch: int, length: int, parts: int, mesh: MeshShape, devices: Any = None) -> Mesh:
  """The mesh over the devices. Raises: ConfigError, as `build` does, if devices, batch or length of rows do not fit."""
  grid = mesh.build(devices)
  _check_batch(batch, parts, grid)
  decoder.check_length(model, length)
  return grid


def _check_batch(batch: int, parts: int, mesh: Mesh) -> None:
  copies = 1
  for axis in RULES['batch']:
    copies *= mesh.shape[axis]
  unit = copies * parts
  if batch % unit:
    near = max(unit, round(batch / unit) * unit)
    raise ConfigError('config.batch', f'batch = {batch}', f'it does not divide into {copies} devices x {parts} parts',
                      f'use {near}')


def _place(state: State, params: Any, mesh: Mesh) -> State:
  """The abstract state with a sharding on every leaf: a leaf with the name and shape of a parameter has its sharding.

  An optimizer keeps its moments in trees whose paths end in the parameter's own path; all else (counters) is replicated.
  """
  places = {jax.tree_util.keystr(path): (leaf, place) for (path, leaf), place in zip(
      jax.tree_util.tree_leaves_with_path(state.params), jax.tree.leaves(params))}
  everywhere = NamedSharding(mesh, PartitionSpec())

  def place(path, leaf):
    for depth in range(len(path)):
      param, sharding = places.get(jax.tree_util.keystr(path[depth:]), (None, None))
      if param is not None and param.shape == leaf.shape:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere)

  return jax.tree_util.tree_map_with_path(place, state)


def compiled(built: Built) -> StepFn:
  """The step, jitted. The new state has the shardings of the old one, whose buffers are donated."""
  return jax.jit(built.step, donate_argnums=0, out_shardings=(_places(built.abstract), None))


def start(built: Built, seed: int, params: Any = None) -> State:
  """The state at step 0, initialised where it lies; with `params`, these parameters and a new optimizer state."""
  with jax.set_mesh(built.mesh):
    state = jax.jit(built.init, out_shardings=_places(built.abstract))(jax.random.key(seed))
  if params is None:
    return state
  return state.replace(params=jax.tree.map(lambda old, new: jax.device_put(jnp.array(new), old.sharding), state.params, params))


def begun(built: Built, edits: tuple[Edit, ...], lineage: tuple[Edit, ...], params: Any, key: Key) -> tuple[Any, Frozen]:
  """Existing parameters after `edits`, split into those that learn, at step 0, and those that do not. `params` are donated.

  `lineage` are all the edits that were ever made to them, the last of which are `edits`. They must lie on the mesh of
  `built`. One program applies all edits, so that what only an edit needs is never kept.
  """
  edit = jax.jit(lambda params, key: split(edited(edits, params, key), lineage), donate_argnums=0,
                 out_shardings=(_places(built.abstract.params), _places(built.frozen)))
  with jax.set_mesh(built.mesh), warnings.catch_warnings():
    warnings.filterwarnings('ignore', 'Some donated buffers were not usable')    # numbers that become fewer bits
    return edit(params, key)


def _places(abstract: Any) -> Any:
  return jax.tree.map(lambda leaf: leaf.sharding, abstract)
