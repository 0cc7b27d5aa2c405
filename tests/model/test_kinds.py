"""What each parameter is, read off its names, for decay, Muon and muP."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from optax.contrib import MuonDimensionNumbers as Muon
from optax.contrib import scale_by_muon

from model.config import Attention, MuP
from model.decoder import build
from model.kinds import kinds, muon_dimensions
from model.mup import lr_multipliers
from model.sharding import unbox
from tests.model.variants import ENCODERS, VARIANTS, small


def boxed(config):
  return jax.eval_shape(build(config).init, jax.random.key(0))


def flat(tree) -> dict:
  leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: x is None or isinstance(x, Muon))
  return {'/'.join(part.key for part in path): leaf for path, leaf in leaves}


def test_kinds_follow_from_logical_names():
  found = flat(kinds(boxed(VARIANTS['gpt2'])))
  assert {name.split('/', 1)[1]: kind for name, kind in found.items() if name.startswith('layers')} == {
    'attention/qkv/weight': 'matrix', 'attention/qkv/bias': 'vector', 'attention/out/weight': 'matrix',
    'attention/out/bias': 'vector', 'mlp/up/weight': 'matrix', 'mlp/up/bias': 'vector', 'mlp/down/weight': 'matrix',
    'mlp/down/bias': 'vector', 'attention_norm/scale': 'vector', 'attention_norm/bias': 'vector',
    'mlp_norm/scale': 'vector', 'mlp_norm/bias': 'vector'}
  assert found['embedding/table'] == found['positions/table'] == 'embedding'
  assert flat(kinds(boxed(VARIANTS['llama3'])))['head/weight'] == 'head'
  bert = flat(kinds(boxed(ENCODERS['bert'])))
  assert {name: kind for name, kind in bert.items() if not name.startswith('layers')} == {
    'embedding/table': 'embedding', 'positions/table': 'embedding', 'types/table': 'embedding',
    'embedding_norm/scale': 'vector', 'embedding_norm/bias': 'vector', 'transform/dense/weight': 'head',
    'transform/dense/bias': 'vector', 'transform/norm/scale': 'vector', 'transform/norm/bias': 'vector',
    'transform/bias': 'vector'}
  sparse = flat(kinds(boxed(VARIANTS['mixtral'])))
  assert {sparse[f'layers/mlp/{name}'] for name in ('router', 'up', 'down')} == {'matrix'}


@pytest.mark.parametrize('name', [*VARIANTS, *ENCODERS])
def test_muon_dimensions_cover_each_matrix_once(name):
  """Inputs times outputs times copies is the whole leaf; the stream's width is on exactly one side."""
  config = {**VARIANTS, **ENCODERS}[name]
  leaves, dims = flat(unbox(boxed(config))), flat(muon_dimensions(boxed(config)))
  for leaf, numbers in dims.items():
    if numbers is not None:
      shape = leaves[leaf].shape
      sides = [*numbers.reduction_axis, *numbers.output_axis]
      assert len(set(sides)) == len(sides) and 0 not in sides
      assert config.width in (int(np.prod([shape[i] for i in side])) for side in numbers)


def test_fused_weights_are_several_matrices_to_muon():
  """An update of qkv is orthogonal matrix by matrix: q, k and v of each layer on their own."""
  config = small(attention=Attention(2, 2, 8))
  dims = flat(muon_dimensions(boxed(config)))['layers/attention/qkv/weight']
  gradient = {'w': jax.random.normal(jax.random.key(0), (2, 16, 2, 3, 8))}
  tx = scale_by_muon(ns_steps=12, weight_dimension_numbers=lambda _: {'w': dims})
  update, _ = tx.update(gradient, tx.init(gradient), gradient)
  for layer in range(2):
    for slot in range(3):
      matrix = np.asarray(update['w'][layer, :, :, slot]).reshape(16, 16)
      assert np.abs(np.linalg.svd(matrix, compute_uv=False) - 1).max() < 0.4


def test_parameters_without_names_are_refused():
  with pytest.raises(ValueError, match='boxed'):
    kinds({'w': jnp.ones(3)})


def test_under_mup_matrices_alone_learn_at_base_width_over_width():
  plain, scaled = small(), small(mup=MuP(base_width=4))
  assert set(flat(lr_multipliers(plain, boxed(plain))).values()) == {1.0}
  rates = flat(lr_multipliers(scaled, boxed(scaled)))
  assert rates['layers/mlp/up/weight'] == rates['layers/attention/out/weight'] == 0.25
  assert rates['embedding/table'] == rates['norm/scale'] == 1.0
