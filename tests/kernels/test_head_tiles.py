"""The cost of `kernels.head`: tiles without weight are skipped, and nothing as large as [B, L, V] is in memory."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from kernels import head as head_module
from kernels import tiles
from kernels.head import token_logp, weighted_nll
from model.sharding import MeshShape
from tests.kernels.calls import counted
from tests.kernels.collectives import exchanged
from tests.kernels.head_table import WITH_Z, B, L, V, close, inputs, objective, step, truth, weighed_logp
from tests.kernels.jaxprs import largest


@pytest.mark.parametrize('last, computed', [(L, 7), (3, 3), (0, 0)])
def test_a_tile_in_which_nothing_counts_is_not_computed(last, computed, monkeypatch):
  """Tiles of one position, of which the first `last` have weight in some row: so many are computed, also of the log-probs."""
  monkeypatch.setattr(tiles, 'TILE_ON_CPU', B * V)
  x, w, targets, _ = inputs()
  weights = np.zeros((B, L), np.float32)
  weights[1, :last] = 1.5
  runs = counted(monkeypatch, head_module, '_logits')

  def times(function):
    runs.clear()
    jax.block_until_ready(jax.jit(function)(x, w))
    jax.effects_barrier()
    return len(runs)

  assert times(jax.value_and_grad(lambda x, w: weighted_nll(x, w, targets, weights).nll, (0, 1))) == computed
  assert times(lambda x, w: weighted_nll(x, w, targets, weights).nll) == computed
  assert times(jax.grad(lambda x, w: weighed_logp(x, w, targets, weights)[0])) == L + computed      # all of them forward
  (value, _), gradients = step(x, w, targets, weights, *WITH_Z)
  expected = truth(x, w, targets, weights, None, 0.3)
  close(value, expected[0][0] + 0.3 * expected[0][1], 1e-5)
  for value, true in zip(gradients, expected[2:]):
    close(value, true, 1e-5)


def test_no_array_of_all_logits(monkeypatch):
  """Neither in what is traced nor in what is compiled; plain cross-entropy, the control, has both."""
  monkeypatch.setattr(tiles, 'TILE_ON_CPU', 4 * 16 * 512)
  shapes = [jax.ShapeDtypeStruct(s, d) for s, d in
            [((4, 256, 8), 'float32'), ((8, 512), 'float32'), ((4, 256), 'int32'), ((4, 256), 'float32')]]
  everything = 4 * 256 * 512

  def plain(x, w, targets, weights):
    logp = jax.nn.log_softmax(x @ w)
    return -(weights * jnp.take_along_axis(logp, targets[..., None], -1)[..., 0]).sum()

  def ours(x, w, targets, weights):
    return objective(x, w, targets, weights, *WITH_Z)[0]

  def logp(x, w, targets, weights):
    return (weights * token_logp(x, w, targets)).sum()

  for loss, small in ((ours, True), (logp, True), (plain, False)):
    grad = jax.grad(loss, (0, 1))
    held = jax.jit(grad).lower(*shapes).compile().memory_analysis().temp_size_in_bytes
    assert (largest(jax.make_jaxpr(grad)(*shapes).jaxpr) < everything / 4) is small
    assert (held < everything) is small          # a quarter of what the logits alone take in float32


@pytest.mark.parametrize('groups', [4, 1])
def test_rows_and_vocabulary_over_eight_devices(groups, monkeypatch):
  """The same numbers. In a tile sums and maxima over the vocabulary are exchanged, and what x gets back: no logits, no head.

  The head's gradient is exchanged after the last tile; the control, told nothing of the rows, does it in every one.
  """
  monkeypatch.setattr(tiles, 'TILE_ON_CPU', 8 * 2 * 64 // 8)      # 3 tiles of two positions
  rng = np.random.default_rng(1)
  x, w, weights = (rng.normal(size=s).astype(np.float32) for s in [(8, 6, 20), (20, 64), (8, 6)])
  targets, mesh = rng.integers(0, 64, (8, 6)), MeshShape(data=4, tensor=2).build()
  laid = [jax.device_put(a, NamedSharding(mesh, P(*spec))) for a, spec in
          [(x, ['data']), (w, [None, 'tensor']), (targets, ['data']), (weights, ['data'])]]

  def both(x, w, targets, weights):
    def loss(x, w):
      sums = weighted_nll(x, w, targets, weights, z_coefficient=0.3, smoothing=0.1, groups=groups)
      return 0.9 * sums.nll + 0.1 * sums.spread + 0.3 * sums.z, sums

    grad = jax.grad(lambda x, w: (weights * token_logp(x, w, targets, groups=groups)).sum(), (0, 1))
    return jax.value_and_grad(loss, (0, 1), has_aux=True)(x, w), grad(x, w)

  with jax.set_mesh(mesh):
    compiled = jax.jit(both).lower(*laid).compile()
    ((_, sums), gradients), others = compiled(*laid)
  told = exchanged(compiled.as_text())
  assert {each.kind for each in told} == {'all-reduce'}
  assert not any(math.prod(each.shape) >= 2 * 2 * 32 for each in told if 20 not in each.shape), told      # no logits
  assert {each.inside for each in told if each.shape[-2:] == (20, 32)} == {groups == 1}, told
  expected = truth(x, w, targets, weights, None, 0.3, 0.1)
  for value, true in zip(sums, expected[0]):
    close(value, true, 1e-5)
  for value, true in zip((*gradients, *others), (*expected[2:], *(-g for g in truth(x, w, targets, weights)[2:]))):
    close(value, true, 1e-5)
