"""Laws of `kernels.divergence`: values and gradients as by definition in float64, and no [B, L, V] in memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from kernels import divergence, tiles
from kernels import divergence_reference as reference
from kernels.divergence import Side, taught, taught_by_stored
from tests.kernels.calls import counted
from tests.kernels.collectives import exchanged
from tests.kernels.head_table import close
from tests.kernels.jaxprs import largest

B, L, D, E, V, K = 3, 7, 8, 5, 19, 4
# name: (beta, temperature, hard, the student's cap, the teacher's, operand type)
CASES = {
  'forward': (0.0, 1.0, 0.0, None, None, None),
  'forward, warm, capped': (0.0, 2.0, 0.3, 4.0, 3.0, None),
  'reverse': (1.0, 1.0, 0.0, None, 3.0, None),
  'reverse, cool': (1.0, 0.7, 0.5, 4.0, None, None),
  'JSD': (0.5, 1.0, 0.0, None, None, None),
  'skew JSD': (0.1, 2.0, 0.2, 4.0, 3.0, None),
  'bfloat16': (0.5, 1.0, 0.3, None, None, jnp.bfloat16),
}


def inputs(length=L, batch=B, seed=0):
  """(student's x and w, teacher's x and w, targets, weights of which some are 0)."""
  rng = np.random.default_rng(seed)
  shapes = (batch, length, D), (D, V), (batch, length, E), (E, V)
  weights = rng.uniform(0, 2, (batch, length)) * (rng.uniform(size=(batch, length)) < 0.7)
  weights[0, 0] = 1.5
  arrays = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
  return *arrays, rng.integers(0, V, (batch, length)), weights.astype(np.float32)


def logits(x, w, softcap=None, dtype=None):
  x, w = (jnp.asarray(a if dtype is None else jnp.asarray(a, dtype), jnp.float64) for a in (x, w))
  return x @ w if softcap is None else softcap * jnp.tanh(x @ w / softcap)


def truth(data, case, tail=None):
  """(sums, gradients of the loss by the student's x and w) in float64; with `tail`, of what is stored of the K likeliest."""
  x, w, tx, tw, targets, weights = data
  beta, temperature, hard, cap, teacher_cap, dtype = case
  with jax.enable_x64(True):
    theirs = logits(tx, tw, teacher_cap, dtype)
    ids = None if tail is None else jax.lax.top_k(theirs, K)[1]

    def loss(x, w):
      sums = reference.taught(logits(x, w, cap), theirs, jnp.asarray(targets), jnp.asarray(weights, jnp.float64), beta,
                              temperature, hard, ids, tail)
      return sums.loss, sums

    start = [jnp.asarray(a if dtype is None else jnp.asarray(a, dtype), jnp.float64) for a in (x, w)]
    (_, sums), gradients = jax.value_and_grad(loss, (0, 1), has_aux=True)(*start)
    return [np.asarray(value) for value in sums], [np.asarray(value) for value in gradients]


def stored(data, case, tail):
  """What is stored of the teacher: ids, and log-probs at the temperature, of the rest too or not."""
  _, _, tx, tw, *_ = data
  with jax.enable_x64(True):
    theirs = logits(tx, tw, case[4])
    ids = jax.lax.top_k(theirs, K)[1]
    found = jnp.log(reference.buckets(jax.nn.softmax(theirs / case[1], -1), ids, tail))
    return np.asarray(ids, np.int32), np.asarray(found, np.float32)


def ours(data, case, tail=None):
  x, w, tx, tw, targets, weights = data
  beta, temperature, hard, cap, teacher_cap, dtype = case
  found = () if tail is None else stored(data, case, tail)

  def loss(x, w):
    side, how = Side(x, w, cap, dtype), {'beta': beta, 'temperature': temperature, 'hard': hard}
    sums = (taught(side, Side(tx, tw, teacher_cap, dtype), targets, weights, **how) if tail is None else
            taught_by_stored(side, *found, targets, weights, **how))
    return sums.loss, sums

  return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(x, w)


def agrees(got, expected, tolerance):
  (_, sums), gradients = got
  for value, true in zip((*sums, *gradients), (*expected[0], *expected[1]), strict=True):
    assert value.dtype == jnp.float32
    close(value, true, tolerance)


@pytest.mark.parametrize('tile', [1, 3, 100])
def test_values_and_gradients(tile, monkeypatch):
  """With tiles of one position, of a number that does not divide the length, and with one tile for all."""
  monkeypatch.setattr(tiles, 'TILE_ON_CPU', tile * 2 * B * V)
  data = inputs()
  for case in CASES.values():
    agrees(ours(data, case), truth(data, case), 2e-5 if case[-1] is None else 2e-2)


@pytest.mark.parametrize('tail', [True, False])
def test_what_is_stored_of_a_teacher(tail):
  data = inputs()
  for name in ('forward', 'forward, warm, capped', 'reverse', 'skew JSD'):
    agrees(ours(data, CASES[name], tail), truth(data, CASES[name], tail), 2e-5)


def test_a_whole_vocabulary_stored_is_the_teacher_itself():
  """Whether there is a rest, which nothing is left for, or not."""
  x, w, tx, tw, targets, weights = data = inputs()
  logp = jax.nn.log_softmax(tx @ tw, -1)
  logps, ids = jax.lax.top_k(logp, V)
  nothing = jnp.full((B, L, 1), -1e4)
  for beta in (0.0, 0.3, 1.0):
    expected = ours(data, (beta, 1.0, 0.0, None, None, None))
    for found in (logps, jnp.concatenate([logps, nothing], -1)):
      stored_loss = jax.jit(jax.value_and_grad(lambda w, found, b=beta: taught_by_stored(
        Side(x, w), ids, found, targets, weights, beta=b).loss))
      value, gradient = stored_loss(w, found)
      close(value, expected[0][0], 1e-5)
      close(gradient, expected[1][1], 1e-5)


def test_the_known_answer():
  """Teacher 3, 2, 1 and student 1, 2, 3, computed elsewhere: 1.150421 at T = 1, and 0.320157 times 4 at T = 2."""
  one = jnp.ones((1, 1, 1))
  student, teacher = Side(one, jnp.array([[1.0, 2, 3]])), Side(one, jnp.array([[3.0, 2, 1]]))
  targets, weights = jnp.zeros((1, 1), int), jnp.ones((1, 1))
  sums = taught(student, teacher, targets, weights)
  assert float(sums.loss) == pytest.approx(1.150421, abs=1e-6) and float(sums.agree) == 0
  assert float(taught(student, teacher, targets, weights, temperature=2.0).loss) == pytest.approx(1.280627, abs=1e-6)


def test_the_ends_of_the_generalised_divergence():
  """Near 0 it is beta times the forward one, near 1 it is (1 - beta) times the reverse one, and the two are told apart."""
  x, w, tx, tw, targets, weights = inputs()
  betas = 0.0, 1e-3, 1 - 1e-3, 1.0
  found = jax.jit(lambda: [taught(Side(x, w / 4), Side(tx, tw), targets, weights, beta=beta).loss for beta in betas])()
  values = dict(zip(betas, map(float, found)))
  assert abs(values[0.0] - values[1.0]) > 0.1 * values[0.0]
  np.testing.assert_allclose([values[1e-3] / 1e-3, values[1 - 1e-3] / 1e-3], [values[0.0], values[1.0]], rtol=5e-2)


@pytest.mark.parametrize('beta', [0.0, 0.3, 1.0])
def test_a_student_equal_to_its_teacher_has_no_loss_and_no_gradient(beta):
  x, w, _, _, targets, weights = inputs()
  same = x, w, x, w, targets, weights
  (value, sums), gradients = ours(same, (beta, 2.0, 0.0, 4.0, 4.0, None))
  assert abs(float(value)) < 1e-5 and float(sums.agree) == pytest.approx(weights.sum())
  assert max(float(jnp.abs(gradient).max()) for gradient in gradients) < 1e-5
  other = ours((x, w, x, 1.1 * w, targets, weights), (beta, 2.0, 0.0, 4.0, 4.0, None))
  assert float(other[0][0]) > 1e-3 and float(jnp.abs(other[1][1]).max()) > 1e-3


def test_the_gradient_keeps_its_scale_at_high_temperature():
  """For small logits, T^2 D has the same gradient at every T; without the square it would fall by 100 from 1 to 10."""
  x, w, tx, tw, targets, weights = inputs()
  data = x, 0.01 * w, tx, 0.01 * tw, targets, weights
  norms = [float(jnp.linalg.norm(ours(data, (0.0, t, 0.0, None, None, None))[1][1])) for t in (1.0, 3.0, 10.0)]
  np.testing.assert_allclose(norms, norms[0], rtol=2e-2)


def test_weightless_positions_contribute_exactly_nothing():
  x, w, tx, tw, targets, weights = inputs()
  idle = weights == 0
  assert idle.any()
  case = CASES['skew JSD']
  spoiled = np.where(idle[..., None], np.nan, x), w, np.where(idle[..., None], np.inf, tx), tw, np.where(idle, -9, targets)
  clean = np.where(idle[..., None], 0, x), w, np.where(idle[..., None], 0, tx), tw, np.where(idle, 3, targets)
  got, expected = ours((*spoiled, weights), case), ours((*clean, weights), case)
  for value, true in zip(jax.tree.leaves(got), jax.tree.leaves(expected)):
    np.testing.assert_array_equal(value, true)
  np.testing.assert_array_equal(got[1][0][idle], 0)


@pytest.mark.parametrize('last', [L, 3, 0])
def test_a_tile_in_which_nothing_counts_is_not_computed(last, monkeypatch):
  """Tiles of one position, of which the first `last` have weight in some row: so many are computed, of a model and of what was
  stored of it, and the rest leaves no mark."""
  monkeypatch.setattr(tiles, 'TILE_ON_CPU', 2 * B * V)
  weights = np.zeros((B, L), np.float32)
  weights[1, :last] = 1.5
  data, case = (*inputs()[:5], weights), CASES['skew JSD']
  runs = counted(monkeypatch, divergence, '_judged')
  for tail in (None, True):
    runs.clear()
    got = ours(data, case, tail)
    jax.block_until_ready(got)
    jax.effects_barrier()
    assert len(runs) == last
    agrees(got, truth(data, case, tail), 2e-5)


def test_linear_in_the_weights_and_forward_alone_gives_the_same_sums():
  x, w, tx, tw, targets, weights = data = inputs()
  for value, alone in zip(ours(data, CASES['JSD'])[0][1], taught(Side(x, w), Side(tx, tw), targets, weights, beta=0.5)):
    close(value, alone, 1e-6)
  loss = jax.jit(jax.value_and_grad(lambda a: taught(Side(x, w), Side(tx, tw), targets, a, beta=0.5).loss))
  close(loss(2 * weights)[0], 2 * loss(weights)[0], 1e-6)
  close((loss(weights)[1] * weights).sum(), loss(weights)[0], 1e-5)


def test_the_teacher_learns_nothing_and_another_gradient_than_the_loss_is_nan():
  x, w, tx, tw, targets, weights = inputs()

  def sums(x, tx, tw):
    return taught(Side(x, w), Side(tx, tw), targets, weights, hard=0.5)

  for gradient in jax.grad(lambda *a: sums(*a).loss, (1, 2))(x, tx, tw):
    np.testing.assert_array_equal(gradient, 0)
  for part in ('divergence', 'nll', 'agree'):
    assert np.isnan(jax.grad(lambda x, part=part: getattr(sums(x, tx, tw), part))(x)).all()


def test_no_array_of_all_logits(monkeypatch):
  """Neither in what is traced nor in what is compiled; the reference, the control, has both."""
  monkeypatch.setattr(tiles, 'TILE_ON_CPU', 2 * 4 * 16 * 512)
  shapes = [jax.ShapeDtypeStruct(shape, 'float32') for shape in [(4, 256, 8), (8, 512), (4, 256, 6), (6, 512)]]
  shapes += [jax.ShapeDtypeStruct((4, 256), kind) for kind in ('int32', 'float32')]
  everything = 4 * 256 * 512

  def tiled(x, w, tx, tw, targets, weights):
    return taught(Side(x, w), Side(tx, tw), targets, weights, beta=0.5).loss

  def plain(x, w, tx, tw, targets, weights):
    return reference.taught(x @ w, tx @ tw, targets, weights, 0.5, 1.0, 0.0).loss

  for loss, small in ((tiled, True), (plain, False)):
    grad = jax.grad(loss, (0, 1))
    held = jax.jit(grad).lower(*shapes).compile().memory_analysis().temp_size_in_bytes
    assert (largest(jax.make_jaxpr(grad)(*shapes).jaxpr) < everything / 4) is small
    assert (held < everything) is small          # a quarter of what one model's logits take in float32


@pytest.mark.parametrize('groups', [4, 1])
def test_rows_and_vocabulary_over_eight_devices(groups, monkeypatch):
  """The same numbers; of a model and of what was stored of it nothing of the size of a tile's logits is gathered.

  The head's gradient is exchanged after the last of three tiles; the control, told nothing of the rows, does it in every one.
  """
  monkeypatch.setattr(tiles, 'TILE_ON_CPU', 2 * 8 * 2 * 32 // 8)
  rng = np.random.default_rng(1)
  x, w, tx, tw, weights = (rng.normal(size=s).astype(np.float32) for s in [(8, 6, 20), (20, 32), (8, 6, 4), (4, 32), (8, 6)])
  targets = rng.integers(0, 32, (8, 6))
  mesh = jax.make_mesh((4, 2), ('data', 'tensor'), axis_types=(AxisType.Auto,) * 2)
  rows, columns = P('data'), P(None, 'tensor')
  laid = [jax.device_put(a, NamedSharding(mesh, spec)) for a, spec in
          zip((x, w, tx, tw, targets, weights), (rows, columns, rows, columns, rows, rows))]

  def loss(x, w, tx, tw, targets, weights):
    return taught(Side(x, w, groups=groups), Side(tx, tw), targets, weights, beta=0.3).loss

  with jax.set_mesh(mesh):
    compiled = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(*laid).compile()
    got = compiled(*laid)
  told = exchanged(compiled.as_text())
  assert {each.kind for each in told} == {'all-reduce'}
  assert {each.inside for each in told if each.shape[-2:] == (20, 16)} == {groups == 1}, told
  expected = truth((x, w, tx, tw, targets, weights), (0.3, 1.0, 0.0, None, None, None))
  for value, true in zip((got[0], *got[1]), (expected[0][0], *expected[1])):
    close(value, true, 2e-5)


def test_shapes_that_do_not_fit_are_named():
  x, w, tx, tw, targets, weights = inputs()
  with pytest.raises(ValueError, match=r'\(3, 7, 8\), \(8, 19\), \(3, 6\)'):
    taught(Side(x, w), Side(tx, tw), targets[:, 1:], weights)
  with pytest.raises(ValueError, match='does not teach'):
    taught(Side(x, w), Side(tx, tw[:, 1:]), targets, weights)
  with pytest.raises(ValueError, match='of a head'):
    taught_by_stored(Side(x, w), np.zeros((B, L, V + 1), int), np.zeros((B, L, V + 1)), targets, weights)
