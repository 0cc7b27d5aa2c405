"""Every experiment file loads, traces and shards on eight pretended devices, and has the same digest as before.

A changed digest means that a file, or a default that it relies on, now describes another experiment: what was made from it
before will be made again. Where that is meant, write the digests again and commit them:

    UPDATE_DIGESTS=1 python -m pytest tests/experiments/test_files.py
"""

import json
import math
import os
from dataclasses import astuple, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from align.avoid_rows import AvoidRows
from experiments.load import call, load, load_module
from experiments.overrides import override
from model.sharding import AXES, MeshShape
from train.artifact import decode, digest, encode, lineage
from train.price import price
from train.published import Published
from train.run import Run

ROOT = Path(__file__).parents[2]
DIGESTS = Path(__file__).with_name('digests.json')
FILES = [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob('experiments/*/*.py'))
         if 'def get_config(' in path.read_text()]
TRACED: set[str] = set()         # a parent of many is traced once
SWEEPS = [path for path in FILES if 'def sweep(' in (ROOT / path).read_text()]


def small(run: Run) -> MeshShape:
  """A mesh of eight devices that cuts along the axes that the run's does, and along 'tensor' where its batch is small."""
  cut = [axis for axis, size in zip(AXES, astuple(run.mesh)) if size != 1] or ['data']
  sizes = dict.fromkeys(AXES, 1) | dict.fromkeys(cut[1:], 2)
  sizes[cut[0]] = math.gcd(8 // math.prod(sizes.values()), run.batch // run.parts)
  return MeshShape(**(sizes | {'tensor': sizes['tensor'] * 8 // math.prod(sizes.values())}))


def batch_of(run: Run) -> dict[str, jax.ShapeDtypeStruct]:
  """The columns that the run's objective reads."""
  if run.rows.form in ('pairs', 'labels'):
    sides = (run.batch, 2, run.rows.length)
    shapes = dict.fromkeys(('tokens', 'segments', 'mask'), sides) | {'margin': sides[:1], 'label': sides[:1],
                                                                     'reference': sides[:2], 'kl': sides[:1]}
    return {name: jax.ShapeDtypeStruct(shape, jnp.int32 if name in ('tokens', 'segments') else jnp.float32)
            for name, shape in shapes.items()}
  if run.rows.form == 'rollouts':
    names = ['mask', 'logp', 'advantage', 'correction', 'ref']
    names += [f'{what}/{of}' for of in run.rows.critics for what in ('values', 'returns')]
    shape = (run.batch, run.rows.length + 1)
    return {name: jax.ShapeDtypeStruct(shape, jnp.int32) for name in ('tokens', 'segments')} | {
        name: jax.ShapeDtypeStruct(shape, jnp.float32) for name in names}
  masked = run.rows.form in ('masked', 'classes')
  shape = (run.batch, run.rows.length + (0 if masked else 1))
  ids, weights = (jax.ShapeDtypeStruct(shape, dtype) for dtype in (jnp.int32, jnp.float32))
  extra = {'targets': ids, 'mask': weights} if masked else {}
  if isinstance(run.rows, AvoidRows):
    extra = {'forbidden': weights, 'price': jax.ShapeDtypeStruct((run.batch,), jnp.float32)}
  return {'tokens': ids, 'segments': ids} | extra


def traced(run: Run) -> None:
  """Traces a step of the run on eight devices: its state keeps its shapes, and parameters are cut as its mesh says."""
  built = replace(run, mesh=small(run)).build()
  assert built.mesh.size == 8
  with jax.set_mesh(built.mesh):
    state, metrics = jax.eval_shape(built.step, built.abstract, built.given, batch_of(run))
  shapes = [jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree) for tree in (state, built.abstract)]
  assert shapes[0] == shapes[1] and metrics['loss'].total.shape == ()
  assert 'FLOPs' in price(built, run.batch, run.rows.length, run.steps)['compute']
  leaves = jax.tree.leaves(built.abstract.params)
  cut = [leaf for leaf in leaves if leaf.sharding.shard_shape(leaf.shape) != leaf.shape]
  if (run.mesh.fsdp, run.mesh.tensor) != (1, 1):
    assert sum(leaf.size for leaf in cut) > 0.9 * sum(leaf.size for leaf in leaves)


@pytest.mark.parametrize('path', FILES)
def test_loads_and_comes_back_from_json(path):
  config = load(str(ROOT / path))
  assert decode(json.loads(json.dumps(encode(config)))) == config


@pytest.mark.parametrize('path', FILES)
def test_traces_and_shards_on_eight_devices(path):
  things = lineage(load(str(ROOT / path)))
  runs = [thing for thing in things if isinstance(thing, Run)]
  assert runs or any(isinstance(thing, Published) for thing in things), f'{path} has no model'
  for run in runs:
    if digest(run) not in TRACED:
      traced(run)
      TRACED.add(digest(run))


@pytest.mark.parametrize('path', SWEEPS)
def test_every_trial_of_a_sweep_is_an_experiment_of_its_own(path):
  module = load_module(str(ROOT / path))
  base, trials = call(module, 'get_config'), call(module, 'sweep')
  things = [override(base, changes) for changes in trials]
  assert len({digest(thing) for thing in things}) == len(trials) > 1


def test_says_what_it_is_how_to_run_it_and_on_what():
  for path in FILES:
    head = (load_module(str(ROOT / path)).__doc__ or '').lower()
    assert f'--config={path}' in head, f'{path}: its docstring lacks the command'


def test_digests_are_what_they_were():
  found = {path: digest(load(str(ROOT / path))) for path in FILES}
  if os.environ.get('UPDATE_DIGESTS'):
    DIGESTS.write_text(json.dumps(found, indent=1) + '\n')
  assert found == json.loads(DIGESTS.read_text()), 'an experiment changed; if that is meant: see the top of this file'
