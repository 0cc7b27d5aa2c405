"""Our fused attention kernels, interpreted on the CPU: over the table of cases, on meshes, and lowered for accelerators."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from kernels import attention_tpu, attention_triton
from kernels.attention_bounds import key_bounds, query_bounds, within
from kernels.attention_triton import Tile, Tiles
from kernels.ranges import Kind, Ranges, causal_ranges, packed_ranges
from tests.kernels.attention_table import CASES, DOCUMENTS, LONG, WIDE, Case, close, gradients, mask, operands, truth
from tests.kernels.collectives import exchanged

FORMS = {
  'triton': partial(attention_triton.triton, tiles=Tiles(Tile(16, 16), Tile(16, 32), Tile(32, 16)), interpret=True),
  'tpu': partial(attention_tpu.tpu, tile=attention_tpu.Tile(16, 8), interpret=True),
}
TRICKY = 'packed, window, cap, grouped', 'huge scores'     # of the table's small heads
NARROW = {'heads of 64, packed, groups of 2', 'cache of wide heads'}
RUNS = [(form, name, dtype) for form in FORMS for name in (*WIDE, *TRICKY) for dtype in
        ('float32', 'bfloat16')[:1 + (name in NARROW)]]


@pytest.mark.parametrize(('form', 'name', 'dtype'), RUNS)
def test_values_and_gradients(form, name, dtype):
  """In blocks of 8 to 32; rows with an empty range have an output and gradients of exactly 0."""
  case = CASES[name]
  data = operands(case, dtype)
  got = jax.jit(partial(gradients, case, FORMS[form]))(*data)
  empty = ~mask(case.ranges, case.keys).any(-1)
  for value, expected in zip(got, truth(case, *data)):
    assert value.dtype == dtype
    close(value, expected, 2e-5 * max(1, case.scale) if dtype == 'float32' else 3e-2)
  assert not np.asarray(got[0])[empty].any() and not np.asarray(got[1])[empty].any()


def shorter(bounds):
  return lambda *arguments: jnp.minimum(bounds(*arguments), bounds(*arguments)[..., 3:] - 1)


def unmasked(bounds):
  def rashly(*arguments):
    start, _, _, stop = jnp.moveaxis(bounds(*arguments), -1, 0)
    return jnp.stack([start, start, stop, stop], -1)
  return rashly


@pytest.mark.parametrize('form', FORMS)
def test_a_wrong_mask_is_noticed(form):
  """The control of the test above: near misses of the ranges fail it, in the result and in every gradient."""
  case = CASES['heads of 32, causal']
  data = operands(case)

  go = jax.jit(lambda ranges: gradients(case._replace(ranges=ranges.replace(kind=Kind())), FORMS[form], *data))
  for wrong in (lambda r: r.replace(last_BL=r.last_BL + 1), lambda r: r.replace(first_BL=r.first_BL + 1)):
    for value, right, expected in zip(go(wrong(case.ranges)), go(case.ranges), truth(case, *data)):
      close(right, expected, 2e-5)
      with pytest.raises(AssertionError):
        close(value, expected, 2e-5)


@pytest.mark.parametrize('damage', [shorter, unmasked])
@pytest.mark.parametrize('form', ['triton', 'tpu'])
def test_a_skipped_block_is_noticed(form, damage, monkeypatch):
  """The control: leaving out a block, or its mask, fails the test of values."""
  module, case = {'triton': attention_triton, 'tpu': attention_tpu}[form], CASES['heads of 64, packed, groups of 2']
  monkeypatch.setattr(module, 'key_bounds', damage(key_bounds))
  monkeypatch.setattr(module, 'query_bounds', damage(query_bounds))
  data = operands(case)
  for value, expected in zip(jax.jit(partial(gradients, case, FORMS[form]))(*data), truth(case, *data)):
    with pytest.raises(AssertionError):
      close(value, expected, 2e-5)


@pytest.mark.parametrize('form', FORMS)
def test_blocks_that_nobody_sees_are_not_touched(form):
  """Keys that no row sees, and rows that see no key, may hold anything: whole blocks of them are never read."""
  first, last = np.full((1, 64), 32), np.full((1, 64), 64)
  last[:, 32:] = 32
  case = Case(Ranges(jnp.asarray(first), jnp.asarray(last), Kind()), keys=64, head_size=16)
  rng = np.random.default_rng(0)
  q, k, v, g = (jnp.asarray(rng.normal(size=(1, 64, 2, 16)), jnp.float32) for _ in range(4))
  go = jax.jit(partial(gradients, case, FORMS[form]))
  ruined = q.at[:, 32:].set(jnp.nan), k.at[:, :32].set(jnp.nan), v.at[:, :32].set(jnp.nan), g.at[:, 32:].set(jnp.nan)
  for clean, got in zip(go(q, k, v, g), go(*ruined)):
    np.testing.assert_array_equal(clean, got)


def test_bounds():
  """Against every pair, one by one: nothing that is seen is left out, nothing that is not seen goes without a mask, and
  the walk of a block of queries is as short as it can be."""
  rng = np.random.default_rng(1)
  scattered = np.sort(rng.integers(-3, 40, (2, 3, LONG)), axis=0)
  for first, last in [scattered, *((r.first_BL, r.last_BL) for r in (causal_ranges(2, LONG), packed_ranges(DOCUMENTS)))]:
    first, last = within(jnp.asarray(first), jnp.asarray(last), 33)
    seen = mask(Ranges(first, last, Kind()), 33)
    for t, c in (8, 8), (16, 4):
      blocks = np.pad(seen, ((0, 0), (0, -LONG % t), (0, -33 % c))).reshape(len(seen), -(-LONG // t), t, -(-33 // c), c)
      some, all_ = blocks.any((2, 4)), blocks.all((2, 4))
      walks = [(partial(key_bounds, t=t, c=c), some, all_),
               (partial(query_bounds, keys=33, t=t, c=c), some.swapaxes(1, 2), all_.swapaxes(1, 2))]
      for bounds, some, all_ in walks:
        found = np.asarray(jax.jit(bounds)(first, last))
        start, whole, past, stop = (x[..., None] for x in np.moveaxis(found, -1, 0))
        index = np.arange(some.shape[2])
        assert (start <= whole).all() and (whole <= past).all() and (past <= stop).all()
        assert not some[(index < start) | (index >= stop)].any() and all_[(index >= whole) & (index < past)].all()


def test_a_causal_walk_is_half_of_the_square():
  """Blocks below the diagonal are walked without a mask, those on it with one, those above it not at all."""
  ranges = causal_ranges(1, 64)
  start, whole, past, stop = np.moveaxis(np.asarray(key_bounds(ranges.first_BL, ranges.last_BL, 8, 8)), -1, 0)
  assert (stop - start).sum() == 36 and (past - whole).sum() == 28
  start, whole, past, stop = np.moveaxis(np.asarray(query_bounds(ranges.first_BL, ranges.last_BL, 64, 8, 8)), -1, 0)
  assert (stop - start).sum() == 36 and (past - whole).sum() == 28


@pytest.mark.parametrize('form', FORMS)
def test_rows_and_heads_over_eight_devices(form):
  """Nothing is gathered where rows and heads lie on different devices, forward and backward."""
  mesh = jax.make_mesh((4, 2), ('data', 'tensor'), axis_types=(AxisType.Auto,) * 2)
  rng = np.random.default_rng(0)
  segments = jnp.asarray(rng.integers(1, 3, (8, 20)).cumsum(-1) // 8)
  q, g = rng.normal(size=(2, 8, 20, 4, 16)).astype(np.float32)
  k, v = rng.normal(size=(2, 8, 20, 2, 16)).astype(np.float32)

  def go(segments, *data):
    return gradients(Case(packed_ranges(segments)), FORMS[form], *data)

  with jax.set_mesh(mesh):
    rows, heads = NamedSharding(mesh, P('data')), NamedSharding(mesh, P('data', None, 'tensor'))
    laid = jax.device_put(segments, rows), *(jax.device_put(a, heads) for a in (q, k, v, g))
    compiled = jax.jit(go).lower(*laid).compile()
    got = compiled(*laid)
  assert not exchanged(compiled.as_text())
  for value, expected in zip(got, truth(Case(packed_ranges(segments), keys=20, heads=4), *map(jnp.asarray, (q, k, v, g)))):
    assert value.sharding.is_equivalent_to(heads, 4)
    close(value, expected, 1e-5)


def test_maps_over_examples():
  """vmap over the batch, as gradients for each example take it, gives what the batch gives."""
  case = CASES['heads of 64, packed, groups of 2']
  data = operands(case)

  def one(first, last, *data):
    alone = case._replace(ranges=Ranges(first[None], last[None], case.ranges.kind))
    return jax.tree.map(lambda a: a[0], gradients(alone, FORMS['triton'], *(x[None] for x in data)))

  mapped = jax.jit(jax.vmap(one))(case.ranges.first_BL, case.ranges.last_BL, *data)
  for got, expected in zip(mapped, truth(case, *data)):
    close(got, expected, 2e-5)


def test_rematerialisation_can_keep_the_forward_pass():
  """Saving what is named 'attention' spares the backward pass the forward kernel."""
  case = CASES['heads of 32, causal']
  q, k, v, _ = operands(case)

  def kernels(policy):
    f = jax.checkpoint(lambda q: FORMS['triton'](q, k, v, case.ranges, scale=1.0, softcap=None), policy=policy)
    return str(jax.make_jaxpr(jax.grad(lambda q: f(q).sum()))(q)).count('custom_vmap_call[')

  assert (kernels(None), kernels(jax.checkpoint_policies.save_only_these_names('attention'))) == (3, 2)


def test_a_scale_must_be_positive():
  q, k, v, _ = operands(CASES['heads of 32, causal'])
  with pytest.raises(ValueError, match='scale of 0: fused kernels take a positive one'):
    FORMS['triton'](q, k, v, CASES['heads of 32, causal'].ranges, scale=0, softcap=None)


SHAPES = [(64, 'bfloat16', None, 1024), (80, 'float32', 20.0, 300), (256, 'bfloat16', None, 1024)]


@pytest.mark.parametrize(('size', 'dtype', 'softcap', 'length'), SHAPES)
@pytest.mark.parametrize('form', FORMS)
def test_lowers_for_the_chip(form, size, dtype, softcap, length):
  """With its own blocks, for a chip that is not here: three kernels, forward and backward."""
  if form == 'triton' and jax.__version_info__ >= (0, 11):
    pytest.skip('from 0.11 on jax asks for a card')
  attend = {'triton': attention_triton.triton, 'tpu': attention_tpu.tpu}[form]
  q, k = (jax.ShapeDtypeStruct((2, length, heads, size), dtype) for heads in (4, 2))

  def go(segments, *data):
    return gradients(Case(packed_ranges(segments), scale=0.1, softcap=softcap), attend, *data)

  traced = jax.jit(go).trace(jax.ShapeDtypeStruct((2, length), 'int32'), q, k, k, q)
  platform, call = {'triton': ('cuda', '@__gpu$xla.gpu.triton'), 'tpu': ('tpu', '@tpu_custom_call')}[form]
  assert traced.lower(lowering_platforms=(platform,)).as_text().count(f'custom_call {call}') == 3
