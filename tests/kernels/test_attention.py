"""The entry point of attention, and its implementations in plain XLA, over the table of cases."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from kernels import attention as door
from kernels import attention_blocked
from kernels.attention import FORMS, UNTRIED, attention, choose, explain
from kernels.attention_call import Call
from kernels.ranges import Kind, Ranges, causal_ranges, packed_ranges
from tests.kernels.attention_table import CASES, SEGMENTS, Case, close, gradients, mask, operands, truth
from tests.kernels.collectives import exchanged
from tests.kernels.jaxprs import equations


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
  """Blocks of 4 queries, so that rows of 11 have three, the last of them short."""
  monkeypatch.setattr(attention_blocked, 'SMALL', 4)
  monkeypatch.setattr(attention_blocked, 'LARGE', 4)


def run(case, implementation, q, k, v, g):
  """The result and the gradients of q, k, v by one implementation."""
  return gradients(case, partial(attention, implementation=implementation), q, k, v, g)


OWN = [('reference', 'float32'), ('few', 'float32'), ('blocked', 'float32')]
FULLY = ('one key head', 'packed', 'bidirectional window', 'cache')      # in both types, and by `xla` too


@pytest.mark.parametrize('name', CASES)
def test_values_and_gradients(name):
  """By the implementations that can run here; rows with an empty range have an output and gradients of exactly 0."""
  case = CASES[name]
  runs = OWN + [('xla', 'float32'), ('reference', 'bfloat16'), ('few', 'bfloat16'), ('blocked', 'bfloat16')] * (name in FULLY)
  data = {dtype: operands(case, dtype) for _, dtype in runs}
  results = jax.jit(lambda data: {(form, dtype): run(case, form, *data[dtype]) for form, dtype in runs})(data)
  empty = ~mask(case.ranges, case.keys).any(-1)
  for (_, dtype), got in results.items():
    for value, expected in zip(got, truth(case, *data[dtype])):
      assert value.dtype == dtype
      close(value, expected, 2e-5 * max(1, case.scale) if dtype == 'float32' else 3e-2)
    assert not np.asarray(got[0])[empty].any() and not np.asarray(got[1])[empty].any()


def test_computing_the_scores_again(monkeypatch):
  """Recomputing the scores, as for long rows on the CPU and always elsewhere, gives the same gradient."""
  monkeypatch.setattr(attention_blocked, 'KEPT', 0)
  names = 'grouped', 'packed', 'random ranges'
  data = [operands(CASES[name]) for name in names]
  results = jax.jit(lambda data: [run(CASES[name], 'blocked', *each) for name, each in zip(names, data)])(data)
  for name, each, got in zip(names, data, results):
    for value, expected in zip(got, truth(CASES[name], *each)):
      close(value, expected, 2e-5)


def test_narrow_operands(monkeypatch):
  """Accelerators multiply in bfloat16 and take the softmax in float32; simulated here with `blocked`, which runs anywhere."""
  case = CASES['packed, window, cap, grouped']
  data = operands(case)
  narrow = [jnp.asarray(a, jnp.bfloat16) for a in data]

  def forward(q, k, v):
    return attention(q, k, v, case.ranges, scale=case.scale, softcap=case.softcap, implementation='blocked', dtype='bfloat16')

  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  traced = jax.make_jaxpr(forward)(*data[:3])
  out, pull = jax.vjp(jax.jit(forward), *data[:3])
  gradients = pull(data[3])
  monkeypatch.undo()
  products = [eqn for eqn in equations(traced.jaxpr) if eqn.primitive.name == 'dot_general']
  assert products and all(v.aval.dtype == jnp.bfloat16 for eqn in products for v in eqn.invars)
  assert all(v.aval.dtype == jnp.float32 for eqn in products for v in eqn.outvars)
  for value, expected in zip((out, *gradients), truth(case, *narrow)):
    assert value.dtype == jnp.float32
    close(value, expected, 3e-2)


@pytest.mark.skipif(jax.default_backend() != 'cpu', reason='about the CPU')
def test_the_cpu_keeps_float32():
  """Asked for bfloat16 operands it gives the float32 result: narrowing would cost time there."""
  case = CASES['packed']
  q, k, v, _ = operands(case)
  wide = [attention(q, k, v, case.ranges, scale=0.5, dtype=dtype) for dtype in (None, jnp.bfloat16)]
  np.testing.assert_array_equal(*wide)


WRONG = {
  'sees one too many': lambda r: r.replace(last_BL=r.last_BL + 1, kind=Kind()),
  'sees one too few': lambda r: r.replace(first_BL=r.first_BL + 1, kind=Kind()),
  'forgets the documents': lambda r: causal_ranges(*r.first_BL.shape),
  'believes in a wrong band': lambda r: r.replace(kind=Kind(before=0, after=0)),
}


@pytest.mark.parametrize('wrong', WRONG)
def test_a_wrong_mask_is_noticed(wrong):
  """The control of the test above: near misses of the packed ranges fail it for every form that reads them."""
  case = CASES['packed']
  data = operands(case)
  other = case._replace(ranges=WRONG[wrong](case.ranges))
  forms = ['blocked'] if wrong == 'believes in a wrong band' else ['reference', 'few', 'blocked', 'xla']
  results = jax.jit(lambda data: [run(other, form, *data) for form in forms])(data)
  for got in results:
    for value, expected in zip(got, truth(case, *data)):
      with pytest.raises(AssertionError):
        close(value, expected, 2e-5)


@pytest.mark.parametrize('form', ['reference', 'few', 'blocked'])
def test_documents_do_not_touch_each_other(form):
  """Another text in document 1 leaves documents 2 and 3, and the gradients that they give, equal to the bit."""
  case = CASES['packed']
  q, k, v, g = operands(case)
  g = jnp.where(SEGMENTS[..., None, None] == 1, 0, g)
  go = jax.jit(lambda *data: run(case, form, *data))
  before = go(q, k, v, g)
  after = go(*(jnp.where(SEGMENTS[..., None, None] == 1, 3 * x + 1, x) for x in (q, k, v)), g)
  for a, b in zip(before, after):
    np.testing.assert_array_equal(np.asarray(a)[SEGMENTS != 1], np.asarray(b)[SEGMENTS != 1])


def test_blocks_pay_only_for_what_is_seen():
  """Products of a causal row take 0.63 of the square's with four blocks, and a narrow window far less."""
  def flops(ranges):
    x = jax.ShapeDtypeStruct((2, 16, 2, 32), 'float32')
    call = jax.jit(lambda q, k, v: attention(q, k, v, ranges, scale=1.0, implementation='blocked'))
    return call.lower(x, x, x).compile().cost_analysis()['flops']

  square = flops(Ranges(jnp.zeros((2, 16), int), jnp.full((2, 16), 16), Kind()))
  assert flops(causal_ranges(2, 16)) < 0.7 * square
  assert flops(causal_ranges(2, 16, 2)) < 0.45 * square


def test_rematerialisation_can_keep_the_forward_pass():
  """Saving what is named 'attention' spares the backward pass the product with the values, for each of three blocks."""
  case = CASES['causal']
  q, k, v, _ = operands(case)

  def products(policy):
    f = jax.checkpoint(lambda q: attention(q, k, v, case.ranges, scale=1.0, implementation='blocked'), policy=policy)
    return str(jax.make_jaxpr(jax.grad(lambda q: f(q).sum()))(q)).count('dot_general')

  keep = jax.checkpoint_policies.save_only_these_names('attention')
  assert products(None) - products(keep) == 3


def test_maps_over_examples():
  """vmap over the batch gives what the batch gives."""
  case = CASES['packed']
  data = operands(case)

  def one(first, last, *data):
    alone = case._replace(ranges=Ranges(first[None], last[None], case.ranges.kind))
    return jax.tree.map(lambda a: a[0], run(alone, 'blocked', *(x[None] for x in data)))

  mapped = jax.jit(jax.vmap(one))(case.ranges.first_BL, case.ranges.last_BL, *data)
  for got, expected in zip(mapped, truth(case, *data)):
    close(got, expected, 2e-5)


@pytest.mark.parametrize('form', ['reference', 'few', 'blocked'])
def test_rows_and_heads_over_eight_devices(form):
  """Nothing is gathered where rows and heads lie on different devices, forward and backward."""
  mesh = jax.make_mesh((4, 2), ('data', 'tensor'), axis_types=(AxisType.Auto,) * 2)
  rng = np.random.default_rng(0)
  segments = jnp.asarray(rng.integers(1, 3, (8, 11)).cumsum(-1) // 5)
  q, g = rng.normal(size=(2, 8, 11, 4, 8)).astype(np.float32)
  k, v = rng.normal(size=(2, 8, 11, 2, 8)).astype(np.float32)

  def go(segments, q, k, v, g):
    return run(Case(packed_ranges(segments)), form, q, k, v, g)

  expected = jax.jit(go)(segments, q, k, v, g)
  with jax.set_mesh(mesh):
    laid = [jax.device_put(a, NamedSharding(mesh, P('data', None, 'tensor'))) for a in (q, k, v, g)]
    compiled = jax.jit(go).lower(jax.device_put(segments, NamedSharding(mesh, P('data'))), *laid).compile()
    got = compiled(jax.device_put(segments, NamedSharding(mesh, P('data'))), *laid)
  assert not exchanged(compiled.as_text())
  for a, b in zip(got, expected):
    close(a, np.asarray(b), 1e-5)


NVIDIA = Call(2048, 2048, 128, 'bfloat16', Kind(None, 0, exact=True), None, 'gpu', 9.0)
OURS = 'hopper' if jax.__version_info__ >= (0, 11) else 'triton'        # on a Hopper, of what cuDNN is slow at
CHOICES = [
  (NVIDIA, 'cudnn', ''),
  (NVIDIA._replace(kind=Kind(1023, 0, exact=True)), OURS, ''),
  (NVIDIA._replace(kind=Kind(1023, 0, exact=True), capability=7.5), 'cudnn', 'capability 8.0'),
  (NVIDIA._replace(kind=Kind(exact=True)), 'cudnn', ''),
  (NVIDIA._replace(kind=Kind(exact=True), keys=78), 'cudnn', ''),
  (NVIDIA._replace(kind=Kind(exact=True), keys=77), OURS, 'odd'),
  (NVIDIA._replace(head_size=256), 'cudnn', ''),
  (NVIDIA._replace(head_size=256, capability=8.0), 'triton', 'head size 256'),
  (NVIDIA._replace(head_size=36), 'triton', 'multiple of 8'),
  (NVIDIA._replace(kind=Kind(None, 0), capability=8.9), 'blocked', 'takes more memory than compute capability 8.9'),
  (NVIDIA._replace(kind=Kind(None, 0), capability=8.9, head_size=64), 'triton', ''),
  (NVIDIA._replace(kind=Kind(None, 0)), OURS, ''),
  (NVIDIA._replace(kind=Kind(None, 0), head_size=8), 'blocked', 'dense bias'),
  (NVIDIA._replace(kind=Kind(None, 0), queries=1), 'decode', ''),
  (NVIDIA._replace(kind=Kind(None, 0), queries=1, capability=7.5), 'blocked', 'dense bias'),
  (NVIDIA._replace(kind=Kind(3, 3, exact=True)), OURS, ''),
  (NVIDIA._replace(keys=4096), OURS, 'no square'),
  (NVIDIA._replace(dtype='float32'), 'triton', 'float32'),
  (NVIDIA._replace(dtype='float64'), 'blocked', 'float64'),
  (NVIDIA._replace(softcap=50.0), OURS, 'soft cap'),
  (NVIDIA._replace(platform='tpu'), 'tpu', ''),
  (NVIDIA._replace(platform='tpu', kind=Kind(), softcap=50.0), 'tpu', ''),
  (NVIDIA._replace(platform='tpu', dtype='float16'), 'blocked', 'float16'),
  (NVIDIA._replace(platform='tpu', queries=1), 'blocked', ''),
  (NVIDIA._replace(platform='tpu', devices=4), 'blocked', 'over 4 devices'),
  (NVIDIA._replace(kind=Kind(3, 3, exact=True), devices=4), OURS, ''),
  (NVIDIA._replace(platform='cpu'), 'blocked', ''),
  (NVIDIA._replace(platform='cpu', queries=1), 'few', ''),
]


@pytest.mark.parametrize(('call', 'name', 'why'), CHOICES)
def test_choice(call, name, why, monkeypatch):
  """The choice is a function of the call, so it can be tested for other machines; here as if all kernels were tried."""
  monkeypatch.setattr(door, 'UNTRIED', frozenset())
  choice = choose(call)
  assert choice.name == name and why in str(choice)


@pytest.mark.parametrize(('platform', 'queries'), [('gpu', 1), ('tpu', 2048)])
def test_untried_kernels_are_named_but_not_picked(platform, queries):
  choice = choose(NVIDIA._replace(platform=platform, queries=queries, kind=Kind(None, 0)))
  assert choice.name == 'blocked' and choice.refused.keys() & UNTRIED


def test_explain_says_what_attention_does():
  case = CASES['packed']
  q, k, _, _ = operands(case)
  assert explain(q, k, case.ranges).name in FORMS
  if jax.default_backend() == 'cpu':
    assert explain(q, k, case.ranges).name == 'few'
    assert str(explain(jax.ShapeDtypeStruct((2, 64, 2, 8), 'float32'), k, case.ranges)) == 'blocked'


def test_refusals_are_explained():
  q, k, v, _ = operands(CASES['causal'])
  ranges = causal_ranges(2, 11)
  with pytest.raises(ValueError, match="'flash' is unknown; choose from reference, few, blocked, xla, cudnn"):
    attention(q, k, v, ranges, scale=1.0, implementation='flash')
  with pytest.raises(ValueError, match='xla cannot do this call: it has no soft cap'):
    attention(q, k, v, ranges, scale=1.0, softcap=1.0, implementation='xla')
  for form, where in ('triton', 'NVIDIA GPUs'), ('tpu', 'TPUs'):
    with pytest.raises(ValueError, match=f'{form} cannot do this call: it runs on {where}, not on cpu'):
      attention(q, k, v, ranges, scale=1.0, implementation=form)
  with pytest.raises(ValueError, match='G must divide H'):
    attention(q[:, :, :1], k, v, ranges, scale=1.0)
  with pytest.raises(ValueError, match='one range a row'):
    attention(q, k, v, causal_ranges(2, 10), scale=1.0)


@pytest.mark.gpu
@pytest.mark.parametrize('kind', [Kind(None, 0, exact=True), Kind(31, 0, exact=True), Kind(exact=True)], ids=str)
@pytest.mark.parametrize('head_size', [64, 128])
def test_cudnn(kind, head_size):
  """cuDNN's windows are those of the reference, with gradients."""
  ranges = causal_ranges(2, 256, kind.window) if kind.causal else \
    Ranges(jnp.zeros((2, 256), jnp.int32), jnp.full((2, 256), 256, jnp.int32), kind)
  case = Case(ranges, keys=256, heads=4, head_size=head_size, scale=head_size ** -0.5)
  data = operands(case, jnp.bfloat16)
  if kind.before is None:                # of windows our kernels come first
    assert explain(data[0], data[1], ranges).name == 'cudnn'
  for value, expected in zip(jax.jit(lambda data: run(case, 'cudnn', *data))(data), truth(case, *data)):
    close(value, expected, 3e-2)
