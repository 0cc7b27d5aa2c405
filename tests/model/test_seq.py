"""Rows cut along their positions: the same loss and gradients, and keys that go round instead of being gathered."""

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import matmul
from model import attention
from model.config import Attention, Compute, Window
from model.sharding import MeshShape, batch_sharding, global_batch, shardings
from tests.model.variants import ENCODERS, made, small

L = 16
MESHES = {'two': (MeshShape(1, 1, 2), 2), 'four': (MeshShape(1, 1, 4), 4), 'all axes': (MeshShape(1, 2, 2, 2), 8)}
MODELS = {
  'llama': small(tied=False, layers=1),
  'cap and windows': small(attention=Attention(4, 2, 8, softcap=5.0, window=Window(3, ('local', 'global')))),
  'encoder': replace(ENCODERS['bert'], layers=1),
}


def rows(length=L):
  segments = np.asarray([[1] * 5 + [2] * (length - 8) + [0] * 3, [1] * length, [1] * 2 + [2] * (length - 2), [0] * length])
  tokens = np.random.default_rng(0).integers(0, 64, (4, length))
  return {'tokens': tokens.astype(np.int32), 'segments': segments.astype(np.int32)}


def graded(config, compute=Compute()):
  model, params = made(config, compute)

  def loss(params, batch):
    hidden = model.hidden(params, batch['tokens'], batch.get('segments'))
    return model.nll(params, hidden.x_BLD, batch['tokens'], jnp.ones(batch['tokens'].shape)).nll / batch['tokens'].size

  return jax.value_and_grad(loss), model, params


def cut(config, where, batch, compute=Compute()):
  """The compiled gradient on a mesh, and what it is given there."""
  function, model, params = graded(config, compute)
  shape, devices = MESHES[where]
  mesh = shape.build(jax.devices()[:devices])
  with jax.set_mesh(mesh):
    places = shardings(jax.eval_shape(model.init, jax.random.key(0)), mesh)
    run = jax.jit(function, in_shardings=(places, batch_sharding(mesh)), out_shardings=(None, places))
    given = jax.device_put(params, places), global_batch(batch, mesh)
    return run.lower(*given).compile(), given


@pytest.mark.parametrize('name, where', [
  ('llama', 'two'), ('llama', 'four'), ('llama', 'all axes'), ('cap and windows', 'all axes'), ('encoder', 'four')])
def test_loss_and_gradients_are_those_of_one_device(name, where):
  batch = rows()
  run, given = cut(MODELS[name], where, batch)
  function, _, params = graded(MODELS[name])
  for a, b in zip(jax.tree.leaves(run(*given)), jax.tree.leaves(jax.jit(function)(params, batch)), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5 * max(1, float(np.abs(b).max())))


def test_no_row_is_gathered(monkeypatch):
  """Of numbers for each position, none is gathered; the control sends keys through the door for whole ones."""
  monkeypatch.setattr(matmul, '_laid_out', lambda x, *_: x)    # on a CPU rows and positions are made one dimension there
  batch = rows(40)
  found = gathered(cut(MODELS['llama'], 'all axes', batch)[0].as_text())
  assert found == []
  monkeypatch.setattr(attention, 'door', lambda keys: attention.attention)
  found = gathered(cut(MODELS['llama'], 'all axes', batch)[0].as_text())
  assert len(found) >= 4


def gathered(text):
  """Shapes of floats with a dimension of 40, the whole row's."""
  shapes = re.findall(r'= f\d+\[([\d,]+)\]\S* (?:all-gather|all-to-all)(?:-start)?\(', text)
  return [shape for shape in shapes if '40' in shape.split(',')]


def test_rematerialised_blocks_keep_what_the_ring_found():
  """With 'dots' the ring does not go round again for the backward pass; with 'full' it does."""
  def rounds(remat):
    function, _, params = graded(MODELS['llama'], Compute(remat=remat))
    with jax.set_mesh(MESHES['two'][0].build(jax.devices()[:2])):
      return sums(jax.make_jaxpr(function)(params, rows()).jaxpr)

  assert 0 < rounds('none') == rounds('dots') < rounds('full')


def sums(jaxpr):
  """How often the logs of rows' sums are taken in all that a trace computes: f32[B, G, R, L]."""
  values = [value for each in jaxpr.eqns for value in each.params.values()]
  inner = [x for value in values for x in (value if isinstance(value, tuple) else (value,))]
  own = sum(each.primitive.name == 'log' and each.outvars[0].aval.ndim == 4 for each in jaxpr.eqns)
  return own + sum(sums(part) for part in (getattr(x, 'jaxpr', x) for x in inner) if hasattr(part, 'eqns'))


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
