"""Ring attention over eight pretended devices: the values of the table, no all-gathers, and balanced work."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from kernels import attention_ring, attention_tpu, attention_triton, attention_walk
from kernels.attention_bounds import within
from kernels.attention_fused import Plan, delta
from kernels.attention_ring import ring
from kernels.attention_triton import Tile, Tiles
from kernels.ranges import Kind, Ranges, causal_ranges, packed_ranges, prefix_ranges
from kernels.zigzag import InLine, ZigZag, order_of, places_of, rows_of
from tests.kernels.attention_table import CASES as TABLE
from tests.kernels.attention_table import Case, close, gradients, mask, operands, truth
from tests.kernels.collectives import exchanged

L = 32
SEGMENTS = jnp.asarray([[1] * 13 + [2] * 19, [1] * 3 + [0] * 9 + [2] * 20])
SCATTERED = np.sort(np.random.default_rng(7).integers(-3, L + 3, (2, 2, L)), axis=0)
CASES = {
  'causal': Case(causal_ranges(2, L), keys=L, heads=4, head_size=16, scale=0.3),
  'packed, cap': Case(packed_ranges(SEGMENTS), keys=L, heads=4, head_size=16, softcap=2.0),
  'window': Case(causal_ranges(2, L, 10), keys=L, heads=4, head_size=16),
  'no zig-zag, grouped': Case(causal_ranges(2, 24), keys=24, heads=8, key_heads=2, head_size=16),
  'prefix': Case(prefix_ranges(jnp.asarray([20, 3]), L), keys=L, heads=4, head_size=16),
  'scattered': Case(Ranges(*jnp.asarray(SCATTERED, jnp.int32), Kind()), keys=L, heads=4, head_size=16),
}
ALL = {'data': 2, 'seq': 2, 'tensor': 2}, P('data', 'seq', 'tensor')
SPECS = {'eight along the row': ({'seq': 8}, P(None, 'seq')), 'all three axes': ALL}


def ordered(order, x):
  """[B, L, ...] with its positions in this order, not sharded."""
  return jnp.concatenate([rows_of(order, i, x.shape[1] // order.n, x) for i in range(order.n)], 1)


def laid(axes, spec, case):
  """A mesh, the order in which a model would lay such rows, and the case's operands on the one in the other."""
  mesh = jax.make_mesh(tuple(axes.values()), tuple(axes), axis_types=(AxisType.Auto,) * len(axes))
  order = order_of(case.ranges.kind, axes['seq'], case.keys)
  return mesh, order, [jax.device_put(ordered(order, x), NamedSharding(mesh, spec)) for x in operands(case)]


def in_line(order, x):
  """What lies in an order, gathered, with its positions in line."""
  return np.asarray(x)[:, np.argsort(ordered(order, jnp.arange(x.shape[1])[None])[0])]


@pytest.mark.parametrize('name, where', [
  *((name, 'eight along the row') for name in CASES), ('causal', 'all three axes'), ('packed, cap', 'all three axes')])
def test_values_and_gradients(name, where):
  case, (axes, spec) = CASES[name], SPECS[where]
  mesh, order, data = laid(axes, spec, case)
  with jax.set_mesh(mesh):
    compiled = jax.jit(partial(gradients, case, partial(ring, spec=spec, order=order))).lower(*data).compile()
    got = compiled(*data)
  for value, expected in zip(got, truth(case, *operands(case))):
    assert value.sharding.is_equivalent_to(NamedSharding(mesh, spec), 4)
    close(in_line(order, value), expected, 2e-5)
  assert {each.kind for each in exchanged(compiled.as_text())} == {'collective-permute'}


KERNELS = {
  'triton': (attention_triton.KERNELS, Tiles(Tile(16, 16), Tile(16, 16), Tile(16, 16))),
  'tpu': (attention_tpu.KERNELS, attention_tpu.Tile(8, 8)),
}


@pytest.mark.parametrize('form', KERNELS)
def test_with_kernels(form, monkeypatch):
  """Interpreted, on two devices of a row: those kernels take shifted ranges and a log-sum-exp from elsewhere."""
  case, (axes, spec) = CASES['packed, cap'], ALL
  monkeypatch.setattr(attention_ring, '_kernels', lambda *_: KERNELS[form])
  monkeypatch.setattr(attention_ring, 'Plan', lambda *fields, interpret: Plan(*fields, interpret=True))
  mesh, order, data = laid(axes, spec, case)
  with jax.set_mesh(mesh):
    got = jax.jit(partial(gradients, case, partial(ring, spec=spec, order=order)))(*data)
  for value, expected in zip(got, truth(case, *operands(case))):
    close(in_line(order, value), expected, 2e-5)


@pytest.mark.parametrize('wrong', ['a lost key', 'an order that it is not told'])
def test_ranges_counted_from_elsewhere_are_noticed(wrong, monkeypatch):
  """The control: the last key of each shard is lost, or rows are folded and said to be in line."""
  case, (axes, spec) = CASES['causal'], ALL
  mesh, order, data = laid(axes, spec, case)
  told = order if wrong == 'a lost key' else InLine(order.n)
  if told == order:
    monkeypatch.setattr(attention_ring, 'places_of', lambda *given: jnp.minimum(places_of(*given), given[2] - 1))
  with jax.set_mesh(mesh):
    got = jax.jit(partial(gradients, case, partial(ring, spec=spec, order=told)))(*data)
  for value, expected in zip(got, truth(case, *operands(case))):
    with pytest.raises(AssertionError):
      close(in_line(order, value), expected, 2e-5)


@pytest.mark.parametrize('order', [InLine(4), ZigZag(4)])
def test_ranges_stay_ranges(order):
  """Counted in the keys that any device holds, what the rows of any other see is what they saw."""
  case = CASES['scattered']
  seen, held = mask(case.ranges, L), L // 4
  for here in range(4):
    rows = rows_of(order, here, held, jnp.arange(L)[None])[0]
    bounds = [rows_of(order, here, held, x) for x in (case.ranges.first_BL, case.ranges.last_BL)]
    for there in range(4):
      keys = rows_of(order, there, held, jnp.arange(L)[None])[0]
      shifted = Ranges(*(places_of(order, there, held, x) for x in bounds), Kind())
      np.testing.assert_array_equal(mask(shifted, held), seen[:, rows][:, :, keys])


@pytest.mark.parametrize('n', [2, 3, 8])
def test_zigzag_there_and_back(n):
  """Each position comes to the device that is to hold it, in the order of its chunks, and home again."""
  mesh = jax.make_mesh((n,), ('seq',), devices=jax.devices()[:n], axis_types=(AxisType.Auto,))
  x, order = jnp.arange(4 * n)[None], ZigZag(n)

  def local(x):
    there = order.there(x, 'seq')
    return there, order.back(there, 'seq')

  with jax.set_mesh(mesh):
    there, back = jax.shard_map(local, in_specs=P(None, 'seq'), out_specs=P(None, 'seq'))(x)
  np.testing.assert_array_equal(there, ordered(order, x))
  np.testing.assert_array_equal(back, x)


def test_windows_bound_how_far_keys_go():
  """As many devices hold keys that rows of one can see as a window says; rows that are not causal or fold see all of them."""
  for held, window in ((1, 4), (4, 1), (4, 2), (4, 5), (4, 6), (4, 9), (4, 10), (4, 99)):
    seen = mask(causal_ranges(1, 8 * held, window), 8 * held)[0].reshape(8, held, 8, held).any((1, 3))
    assert InLine(8).sees(causal_ranges(1, 1, window).kind, held) == seen[7].sum(), (held, window)
  assert InLine(8).sees(Kind(3, 3), 4) == InLine(8).sees(Kind(), 4) == ZigZag(8).sees(Kind(5, 0), 4) == 8


def test_order_of_is_zigzag_for_causal_rows():
  orders = [order_of(kind, 4, length) for kind, length in (
    (Kind(None, 0), 32), (Kind(30, 0), 32), (Kind(5, 0), 32), (Kind(), 32), (Kind(None, 0), 28))]
  assert orders == [ZigZag(4), ZigZag(4), *[InLine(4)] * 3] and order_of(Kind(None, 0), 1, 32) == InLine(1)


def walked(monkeypatch, order):
  """How many pairs of blocks each device multiplies in each step of a causal row, where it does any."""
  visits = []

  def forward(plan, q, k, v, first, last):
    start, stop = attention_walk.bounds(first, last, plan.tiles)
    jax.debug.callback(lambda *visit: visits.append(visit), jax.lax.axis_index('seq'), jnp.maximum(stop - start, 0).sum())
    return attention_walk.forward(plan, q, k, v, first, last)

  monkeypatch.setattr(attention_ring, '_kernels', lambda *_: (attention_walk.KERNELS._replace(forward=forward), 2))
  case, spec = CASES['causal'], P(None, 'seq')
  mesh = jax.make_mesh((4,), ('seq',), devices=jax.devices()[:4], axis_types=(AxisType.Auto,))
  attend = jax.jit(partial(ring, ranges=case.ranges, spec=spec, order=order, scale=1.0))
  with jax.set_mesh(mesh):
    jax.block_until_ready(attend(*(ordered(order, x) for x in operands(case)[:3])))
    jax.effects_barrier()
  return [sorted(int(count) for device, count in visits if device == here) for here in range(4)]


def test_causal_work_is_equal(monkeypatch):
  """Folded, every device has the same number of pairs of blocks to multiply, step by step, and together they have no more
  than in line, where the last does six times what the first does: the control."""
  folded = walked(monkeypatch, ZigZag(4))
  assert all(device == folded[0] for device in folded) and len(folded[0]) == 4
  line = walked(monkeypatch, InLine(4))
  assert [sum(device) for device in line] == [10, 26, 42, 58] and [len(device) for device in line] == [1, 2, 3, 4]
  assert sum(map(sum, folded)) == sum(map(sum, line)) == 16 * 17 / 2


WALKS = 'packed, window, cap, grouped', 'bidirectional', 'random ranges', 'huge scores', 'groups of 8, scattered, cap'


@pytest.mark.parametrize('name', WALKS)
def test_attention_walk_gives_the_values_of_the_table(name):
  """On one device, in blocks of 4, the last of them short: values and gradients."""
  case = TABLE[name]
  q, k, v, g = operands(case)
  plan = Plan(Kind(), case.scale, case.softcap, 4, interpret=False)
  bounds = within(case.ranges.first_BL, case.ranges.last_BL, case.keys)
  grouped = [x.reshape(*x.shape[:2], case.key_heads, -1, x.shape[3]) for x in (q, g)]
  out, lse = attention_walk.forward(plan, grouped[0], k, v, *bounds)
  found = attention_walk.backward(plan, grouped[0], k, v, *bounds, lse, delta(out, grouped[1]), grouped[1])
  for value, expected in zip((out, *found), truth(case, q, k, v, g)):
    close(value.reshape(expected.shape), expected, 2e-5 * max(1, case.scale))


@pytest.mark.parametrize('name, why', [
  ('cudnn', 'gives no log-sum-exps: use hopper, tpu, triton or blocked'), ('triton', 'it runs on NVIDIA GPUs')])
def test_implementations_without_log_sum_exps_are_refused(name, why):
  case, (axes, spec) = CASES['causal'], ALL
  mesh, order, (q, k, v, _) = laid(axes, spec, case)
  with jax.set_mesh(mesh), pytest.raises(ValueError, match=why):
    ring(q, k, v, case.ranges, spec=spec, order=order, scale=1.0, implementation=name)


def test_positions_must_divide_over_the_devices_that_there_are():
  case, (axes, spec) = CASES['causal'], SPECS['eight along the row']
  mesh, order, (q, k, v, _) = laid(axes, spec, case)
  with jax.set_mesh(mesh), pytest.raises(ValueError, match='ring of 8 devices and 24 key positions: take a multiple of 16'):
    ring(q, k[:, :24], v[:, :24], case.ranges, spec=spec, order=order, scale=1.0)
  with jax.set_mesh(mesh), pytest.raises(ValueError, match='an order of 4 devices on 8 along seq'):
    ring(q, k, v, case.ranges, spec=spec, order=ZigZag(4), scale=1.0)
