"""Rows cut along their positions: the same loss and gradients, and keys that go round instead of being gathered."""

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import matmul, tiles
from model import attention, decoder
from model.config import Attention, Compute, Gated, MoE, Window
from model.sharding import MeshShape, batch_sharding, shardings
from tests.model.variants import ENCODERS, made, small

L = 16
MESHES = {'two': (MeshShape(1, 1, 2), 2), 'four': (MeshShape(1, 1, 4), 4), 'all axes': (MeshShape(1, 2, 2, 2), 8)}
MODELS = {
  'llama': small(tied=False, layers=1),
  'cap and windows': small(attention=Attention(4, 2, 8, softcap=5.0, window=Window(3, ('local', 'global')))),
  'encoder': replace(ENCODERS['bert'], layers=1),
  'experts': small(mlp=MoE(4, 2, Gated(24)), layers=1),
}
MIXED = replace(MODELS['cap and windows'], layers=4)      # on four devices rows fold in the global layers alone


def rows(length=L):
  segments = np.asarray([[1] * 5 + [2] * (length - 8) + [0] * 3, [1] * length, [1] * 2 + [2] * (length - 2), [0] * length])
  tokens = np.random.default_rng(0).integers(0, 64, (4, length))
  return {'tokens': tokens.astype(np.int32), 'segments': segments.astype(np.int32)}


def graded(config, compute=Compute()):
  model, params = made(config, compute)

  def loss(params, batch):
    hidden = model.hidden(params, batch['tokens'], batch.get('segments'))
    nll = model.nll(params, hidden.x_BLD, batch['tokens'], jnp.ones(batch['tokens'].shape)).nll / batch['tokens'].size
    return nll + sum(penalty_B.mean() for penalty_B in hidden.aux.values())

  return jax.value_and_grad(loss), model, params


def cut(config, where, batch, compute=Compute()):
  """The compiled gradient on a mesh, and what it is given there."""
  function, model, params = graded(config, compute)
  shape, devices = MESHES[where]
  mesh = shape.build(jax.devices()[:devices])
  with jax.set_mesh(mesh):
    places = shardings(jax.eval_shape(model.init, jax.random.key(0)), mesh)
    run = jax.jit(function, in_shardings=(places, batch_sharding(mesh)), out_shardings=(None, places))
    given = jax.device_put(params, places), jax.device_put(batch, batch_sharding(mesh))
    return run.lower(*given).compile(), given


def same(config, where, compute=Compute()):
  """Loss and gradients, cut and on one device."""
  batch = rows()
  run, given = cut(config, where, batch, compute)
  function, _, params = graded(config, compute)
  for a, b in zip(jax.tree.leaves(run(*given)), jax.tree.leaves(jax.jit(function)(params, batch)), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5 * max(1, float(np.abs(b).max())))


@pytest.mark.parametrize('name, where', [
  ('llama', 'two'), ('llama', 'four'), ('llama', 'all axes'), ('cap and windows', 'all axes'), ('encoder', 'four'),
  ('experts', 'two')])
def test_loss_and_gradients_are_those_of_one_device(name, where):
  same(MODELS[name], where)


def test_layers_whose_rows_lie_otherwise():
  """In a loop of local and global ones, which are computed again for the backward pass."""
  same(MIXED, 'four', Compute(layers='scan', remat='full'))


def test_the_stream_is_folded_once():
  """It comes home in two halves, and so does its gradient, however many layers there are. The control: global layers between
  layers with windows have to fold it each."""
  def moves(config):
    function, _, params = graded(config)
    with jax.set_mesh(MESHES['four'][0].build(jax.devices()[:4])):
      trace = jax.make_jaxpr(function)(params, rows()).jaxpr
    return counted(trace, lambda each: each.primitive.name == 'ppermute' and each.outvars[0].aval.ndim == 3)

  assert [moves(replace(MODELS['llama'], layers=layers)) for layers in (1, 3)] == [4, 4]
  assert moves(MIXED) == 2 * 8 and moves(MODELS['encoder']) == 0


def test_no_row_is_gathered(monkeypatch):
  """Of numbers for each position, none is gathered; the control sends keys through the door for whole ones."""
  monkeypatch.setattr(matmul, '_laid_out', lambda x, *_: x)    # on a CPU rows and positions are made one dimension there
  batch = rows(40)
  found = gathered(cut(MODELS['llama'], 'all axes', batch)[0].as_text())
  assert found == []
  monkeypatch.setattr(attention, 'door', lambda *_: attention.attention)
  found = gathered(cut(MODELS['llama'], 'all axes', batch)[0].as_text())
  assert len(found) >= 4


def test_the_head_works_where_the_positions_are(monkeypatch):
  """Four devices share the products of the loss head, which with a vocabulary this large is nearly all there is, in each of
  its ten tiles: rows that do not divide are everybody's. The control cuts tiles from rows as they are."""
  monkeypatch.setattr(tiles, 'TILE_ON_CPU', 4 * 4096)

  def share():
    each = [cut(replace(MODELS['llama'], vocab=4096), 'four', rows(length))[0].cost_analysis()['flops'] for length in (40, 39)]
    return each[0] / each[1]

  assert share() < 0.3
  monkeypatch.setattr(decoder, 'apart', lambda *arrays: (arrays, 1))
  assert share() > 0.6


def gathered(text):
  """Shapes of floats with a dimension of 40, the whole row's."""
  shapes = re.findall(r'= f\d+\[([\d,]+)\]\S* (?:all-gather|all-to-all)(?:-start)?\(', text)
  return [shape for shape in shapes if '40' in shape.split(',')]


def test_rematerialised_blocks_keep_what_the_ring_found():
  """With 'dots' the ring does not go round again for the backward pass; with 'full' it does."""
  def adds(each):
    """Whether it takes the logs of rows' sums, f32[B, G, R, L]."""
    return each.primitive.name == 'log' and each.outvars[0].aval.ndim == 4

  def rounds(remat):
    function, _, params = graded(MODELS['llama'], Compute(remat=remat))
    with jax.set_mesh(MESHES['two'][0].build(jax.devices()[:2])):
      return counted(jax.make_jaxpr(function)(params, rows()).jaxpr, adds)

  assert 0 < rounds('none') == rounds('dots') < rounds('full')


def counted(jaxpr, what):
  """How many of the steps in a trace, and in what they hold, are such."""
  values = [value for each in jaxpr.eqns for value in each.params.values()]
  inner = [x for value in values for x in (value if isinstance(value, tuple) else (value,))]
  return sum(map(what, jaxpr.eqns)) + sum(
    counted(part, what) for part in (getattr(x, 'jaxpr', x) for x in inner) if hasattr(part, 'eqns'))


def test_positions_that_do_not_divide_stay_whole():
  """Rows of 15 on two devices are nobody's error: they are not cut, as before."""
  batch = {'tokens': rows()['tokens'][:, :15]}
  run, given = cut(MODELS['llama'], 'two', batch)
  function, _, params = graded(MODELS['llama'])
  np.testing.assert_allclose(run(*given)[0], jax.jit(function)(params, batch)[0], rtol=1e-5)
  assert 'collective-permute' not in run.as_text()


def test_a_form_without_sums_is_refused():
  with pytest.raises(ValueError, match='attention by xla cannot be cut along positions'):
    cut(MODELS['llama'], 'two', rows(), Compute(attention='xla'))


def test_a_cache_takes_keys_whole():
  """Generation does not go round: what was there with seq = 1 is what comes out."""
  model, params = made(MODELS['llama'])
  tokens = jnp.asarray(rows()['tokens'])

  def read(params, tokens):
    first = model.hidden(params, tokens[:, :8], cache=model.cache(4, L))
    return model.hidden(params, tokens[:, 8:], cache=first.cache).x_BLD

  alone = jax.jit(read)(params, tokens)
  with jax.set_mesh(MESHES['two'][0].build(jax.devices()[:2])):
    np.testing.assert_allclose(jax.jit(read)(params, tokens), alone, atol=1e-5)
