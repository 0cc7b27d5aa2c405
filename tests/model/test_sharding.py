"""A mesh changes where numbers lie, not what they are."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from kernels import tiles
from model.config import Attention, Window
from model.decoder import build
from model.errors import ConfigError
from model.generate import generate
from model.sampling import GREEDY
from model.sharding import MeshShape, batch_sharding, parts, pin, shardings, unbox
from tests.kernels.collectives import exchanged
from tests.model.variants import EXACT, made, small, tokens

LLAMA = small(attention=Attention(4, 2, 8, window=Window(3, ('local', 'global'))), tied=False)
SPLITS = {'fsdp': MeshShape(1, 8), 'tensor': MeshShape(2, 2, 1, 2), 'seq': MeshShape(1, 2, 2, 2)}


def loss_and_gradient(config):
  model, params = made(config)
  segments_BL = jnp.tile(jnp.array([[1, 1, 1, 2, 2, 2, 2, 0]]), (8, 1))
  batch = {'tokens': np.asarray(tokens(8, 8)), 'segments': np.asarray(segments_BL)}

  def loss(params, batch):
    hidden = model.hidden(params, batch['tokens'], batch['segments'])
    weights_BL = (batch['segments'] > 0).astype(jnp.float32)
    sums = model.nll(params, hidden.x_BLD, batch['tokens'], weights_BL)
    return sums.nll + sum(penalty_B.sum() for penalty_B in hidden.aux.values())

  return jax.value_and_grad(loss), params, batch


@pytest.mark.parametrize('name, split', [*(('llama', split) for split in SPLITS), ('mixtral', 'tensor'), ('olmo2', 'tensor')])
def test_splits_change_nothing(name, split):
  config = LLAMA if name == 'llama' else EXACT[name]
  function, params, batch = loss_and_gradient(config)
  expected = jax.jit(function)(params, batch)
  mesh = SPLITS[split].build()
  with jax.set_mesh(mesh):
    places = shardings(jax.eval_shape(build(config).init, jax.random.key(0)), mesh)
    run = jax.jit(function, in_shardings=(places, batch_sharding(mesh)), out_shardings=(None, places))
    found = run(jax.device_put(params, places), jax.device_put(batch, batch_sharding(mesh)))
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * float(np.abs(b).max()))


def test_parameters_are_born_where_they_belong():
  """Born inside jit on a mesh they are the same numbers, each device holding its part."""
  mesh = MeshShape(1, 2, 1, 4).build()
  model = build(small(attention=Attention(4, 4, 8)))
  places = shardings(jax.eval_shape(model.init, jax.random.key(0)), mesh)
  with jax.set_mesh(mesh):
    params = jax.jit(lambda key: unbox(model.init(key)), out_shardings=places)(jax.random.key(0))
  alone = unbox(jax.jit(model.init)(jax.random.key(0)))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=3e-7), params, alone)   # jax 0.12 rounds by the parts
  layers = params['layers']
  parts = {name: layers[part][name]['weight'].addressable_shards[0].data.shape
           for part, name in (('attention', 'qkv'), ('attention', 'out'), ('mlp', 'up'), ('mlp', 'down'))}
  assert parts == {'qkv': (2, 8, 1, 3, 8), 'out': (2, 1, 8, 8), 'up': (2, 8, 2, 6), 'down': (2, 6, 8)}
  assert params['embedding']['table'].addressable_shards[0].data.shape == (8, 16)


def test_rows_split_over_data_are_not_exchanged():
  """The forward pass under data parallelism alone needs no collective at all."""
  model, params = made(LLAMA)
  mesh = MeshShape().build()
  with jax.set_mesh(mesh):
    rows = jax.device_put(tokens(8, 8), batch_sharding(mesh))
    text = jax.jit(lambda p, t: model.hidden(p, t).x_BLD).lower(
      jax.device_put(params, NamedSharding(mesh, PartitionSpec())), rows).compile().as_text()
  for collective in ('all-gather', 'all-reduce', 'all-to-all', 'collective-permute', 'reduce-scatter'):
    assert f' {collective}(' not in text and f' {collective}-start(' not in text, collective


def test_tensor_parallel_blocks_need_one_sum_each():
  """Attention and MLP cut over heads and hidden units: no activation is gathered, each ends in one all-reduce."""
  config = small(attention=Attention(4, 4, 8), tied=False, layers=1)
  model, params = made(config)
  mesh = MeshShape(1, 1, 1, 4).build(jax.devices()[:4])
  with jax.set_mesh(mesh):
    places = shardings(jax.eval_shape(model.init, jax.random.key(0)), mesh)
    places['embedding']['table'] = NamedSharding(mesh, PartitionSpec())
    text = jax.jit(lambda p, t: model.hidden(p, t).x_BLD).lower(
      jax.device_put(params, places), tokens(8, 8)).compile().as_text()
  assert text.count(' all-reduce(') + text.count(' all-reduce-start(') == 2
  assert ' all-gather(' not in text and ' all-to-all(' not in text


@pytest.mark.parametrize('tied', [False, True])
@pytest.mark.parametrize('split', [MeshShape(1, 2, 1, 4), MeshShape(1, 8)])
def test_the_head_is_gathered_over_fsdp_once_and_never_over_tensor(tied, split, monkeypatch):
  """In a tile nothing of the head and no logits: sums over the vocabulary alone, and what x gets back, of one position."""
  monkeypatch.setattr(tiles, 'TILE_ON_CPU', 80)       # one position of each of 8 rows
  config = small(attention=Attention(4, 4, 8), vocab=80, tied=tied, layers=1)
  function, params, batch = loss_and_gradient(config)
  mesh = split.build()
  with jax.set_mesh(mesh):
    places = shardings(jax.eval_shape(build(config).init, jax.random.key(0)), mesh)
    run = jax.jit(function, in_shardings=(places, batch_sharding(mesh)), out_shardings=(None, places))
    told = exchanged(run.lower(params, batch).compile().as_text())
  width, own, rows = 16, 80 // split.tensor, 8 // split.fsdp
  inside = {each.shape for each in told if each.inside}
  assert inside <= ({(rows, 1), (rows, 1, 1), (1, rows, 1, width)} if split.tensor > 1 else set()), inside
  gathered = {each.shape for each in told if each.kind == 'all-gather' and {own, 80} & {*each.shape}}
  assert gathered == {(own, width) if tied else (width, own)}, told


def test_generation_on_a_mesh():
  model, params = made(LLAMA)
  prompts = [[1, 2, 3], [4], [5, 6], [7, 8, 9, 10]]
  settings = {'max_new': 4, 'sampling': GREEDY, 'key': jax.random.key(0)}
  alone = generate(model, params, prompts, **settings)
  mesh = MeshShape(2, 2, 1, 2).build()
  with jax.set_mesh(mesh):
    places = shardings(jax.eval_shape(model.init, jax.random.key(0)), mesh)
    placed = jax.device_put(params, places)
    found = [generate(model, placed, prompts, **settings), generate(model, placed, prompts, **settings, at_once=2)]
  for cut in found:
    assert [row.tolist() for row in cut.tokens] == [row.tolist() for row in alone.tokens]


def test_pin_needs_no_mesh_and_does_not_cut_what_does_not_divide():
  x = jnp.ones((5, 4, 8))
  assert pin(x, 'batch', 'length', None) is x
  with jax.set_mesh(MeshShape(4, 2).build()):
    assert jax.jit(lambda x: pin(x, 'batch', None, None))(x).sharding.shard_shape(x.shape) == (5, 4, 8)
    y = jnp.ones((16, 4, 8))
    assert jax.jit(lambda y: pin(y, 'batch', None, None))(y).sharding.shard_shape(y.shape) == (2, 4, 8)


def test_what_does_not_divide_stays_whole_and_is_told(caplog):
  mesh = MeshShape(1, 1, 1, 8).build()
  with caplog.at_level(logging.WARNING):
    places = shardings(jax.eval_shape(build(small(vocab=65, tied=False)).init, jax.random.key(0)), mesh)
  assert places['head']['weight'].is_fully_replicated
  assert 'vocab = 65 does not divide into 8 devices' in caplog.text and 'use 72' in caplog.text


def test_parts_are_as_many_as_pin_cuts():
  assert parts('batch', 8) == 1
  with jax.set_mesh(MeshShape(2, 2, 1, 2).build()):
    assert [parts(*each) for each in (('batch', 8), ('batch', 6), ('batch', 5), ('vocab', 8), ('width', 8))] == [4, 2, 1, 2, 1]


@pytest.mark.parametrize('shape, message', [
  (MeshShape(data=3), '3 devices; there are 8'),
  (MeshShape(data=-1, fsdp=3), 'a multiple of 3 devices; there are 8'),
  (MeshShape(data=2, fsdp=2, tensor=4), '16 devices; there are 8'),
])
def test_a_mesh_that_does_not_fit_shows_both_numbers(shape, message):
  with pytest.raises(ConfigError, match=message):
    shape.build()


def test_sizes_of_a_mesh_are_checked():
  assert dict(MeshShape(fsdp=4).build().shape) == {'data': 2, 'fsdp': 4, 'seq': 1, 'tensor': 1}
  for sizes in ((0,), (-1, -1), (-2,)):
    with pytest.raises(ConfigError, match='at least 1'):
      MeshShape(*sizes)
