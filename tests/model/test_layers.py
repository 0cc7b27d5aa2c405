"""A model of some of another's layers: those it takes, what lies around them, and the layers that cannot stand elsewhere."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.errors import ConfigError
from model.layers import TakeLayers
from model.sharding import names
from tests.model.variants import VARIANTS, made, small, tokens


def test_it_is_the_teacher_with_the_other_layers_left_out():
  """Layers that add nothing to what flows past may as well not be there: those that are left out are silenced."""
  config = small(layers=5)
  model, params = made(config)
  edit = TakeLayers((0, 2, 4))
  student = edit.model(config)
  assert student == replace(config, layers=3)
  taken = edit(params, jax.random.key(0))
  keep = jnp.array([1.0, 0, 1, 0, 1])

  def silenced(path, leaf):
    last = [part.key for part in path][-2:] in (['out', 'weight'], ['down', 'weight'])
    return leaf * keep.reshape(-1, *[1] * (leaf.ndim - 1)) if last else leaf

  quiet = {**params, 'layers': jax.tree_util.tree_map_with_path(silenced, params['layers'])}
  theirs = jax.jit(lambda tree: model.hidden(tree, tokens()).x_BLD)(quiet)
  ours = jax.jit(lambda tree: made(student)[0].hidden(tree, tokens()).x_BLD)(taken)
  np.testing.assert_allclose(ours, theirs, atol=1e-5)
  assert taken['embedding'] is params['embedding']


def test_a_boxed_tree_keeps_its_names():
  config = small(layers=3)
  boxed = jax.eval_shape(made(config)[0].init, jax.random.key(0))
  taken = jax.eval_shape(TakeLayers((2, 0)), boxed, jax.random.key(0))
  wanted = jax.eval_shape(made(small(layers=2))[0].init, jax.random.key(0))
  assert names(taken) == names(wanted) and jax.tree.map(jnp.shape, taken) == jax.tree.map(jnp.shape, wanted)


def test_layers_are_spread_evenly_from_the_first_to_the_last():
  assert TakeLayers.spread(10, of=30).layers == (0, 3, 6, 10, 13, 16, 19, 23, 26, 29)
  assert TakeLayers.spread(1, of=4).layers == (0,) and TakeLayers.spread(3, of=3).layers == (0, 1, 2)
  with pytest.raises(ConfigError, match='use 1 to 4'):
    TakeLayers.spread(5, of=4)


def test_layers_that_are_not_there_or_have_another_role_are_refused():
  gemma = VARIANTS['gemma2']                    # local, global, local
  for layers, config, id in (((0, 2), small(), 'edit.no-layer'), ((0, 2), gemma, 'edit.other-role')):
    with pytest.raises(ConfigError) as caught:
      TakeLayers(layers).model(config)
    assert caught.value.id == id
  assert TakeLayers((2, 1)).model(gemma).layers == 2
  with pytest.raises(ConfigError, match='0 to 1'):
    TakeLayers((2,))(made(small())[1], jax.random.key(0))
