"""Attention with one entry point: picks the fastest implementation that can do the call on this platform.

Masks are ranges (kernels.ranges): each query row attends to the keys of one interval. Every implementation computes the same,

    out[b, i, h] = sum_s softmax_s(cap(scale * q[b, i, h] . k[b, s, g(h)])) v[b, s, g(h)],   s in [first_i, last_i)

    attention(q, k, v, causal_ranges(batch, length), scale=0.125)
    print(explain(q, k, ranges))         # blocked (not tpu: it has not run on a chip yet: name it to use it)

Letters: B rows, L query positions, S key positions, G key heads, H query heads, K head size.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from kernels.attention_blocked import blocked
from kernels.attention_call import Call
from kernels.attention_few import few
from kernels.attention_held import Held, whole
from kernels.attention_reference import reference
from kernels.attention_stock import cudnn, cudnn_refusal, xla, xla_refusal
from kernels.choice import Choice, devices
from kernels.ranges import Kind, Ranges, cached_ranges, causal_ranges, packed_ranges, prefix_ranges

Name = Literal['reference', 'few', 'blocked', 'xla', 'cudnn', 'hopper', 'triton', 'decode', 'tpu']

FEW_QUERIES = 16    # below it blocks of queries would be mostly padding: decoding has implementations of its own

UNTRIED = frozenset({'decode', 'tpu'})
"""Implementations that passed their tests in interpret mode and compile, and have never run on hardware: only by name."""

__all__ = ['Choice', 'Kind', 'Name', 'Ranges', 'attention', 'cached_ranges', 'causal_ranges', 'choose', 'explain',
           'packed_ranges', 'prefix_ranges']


class Form(NamedTuple):
  """One implementation: the function, and one that says why it cannot do a call (None: it can)."""

  run: Callable[..., jax.Array]
  refusal: Callable[[Call], str | None]
  holds: bool = False                 # whether it reads int8 or paged keys and values itself; others get them as arrays


def _late(form: Callable[[], Form], holds: bool = False) -> Form:
  """An implementation that is imported when it is first used, because importing Pallas takes a quarter of a second."""
  return Form(lambda *operands, **how: form().run(*operands, **how), lambda call: form().refusal(call), holds)


def _hopper() -> Form:
  from kernels.attention_hopper import hopper, hopper_refusal
  return Form(hopper, hopper_refusal)


def _triton() -> Form:
  from kernels.attention_triton import triton, triton_refusal
  return Form(triton, triton_refusal)


def _decode() -> Form:
  from kernels.attention_decode import decode, decode_refusal
  return Form(decode, decode_refusal)


def _tpu() -> Form:
  from kernels.attention_tpu import tpu, tpu_refusal
  return Form(tpu, tpu_refusal)


FORMS: dict[str, Form] = {
  'reference': Form(reference, lambda call: None),
  'few': Form(few, lambda call: None),
  'blocked': Form(blocked, lambda call: None),
  'xla': Form(xla, xla_refusal),
  'cudnn': Form(cudnn, cudnn_refusal),
  'hopper': _late(_hopper),
  'triton': _late(_triton),
  'decode': _late(_decode, holds=True),
  'tpu': _late(_tpu),
}


def attention(q_BLHK: jax.Array, k_BSGK: Held, v_BSGK: Held, ranges: Ranges, *, scale: float,
              softcap: float | None = None, implementation: str | None = None,
              dtype: jnp.dtype | type | str | None = None) -> jax.Array:
  """softmax(cap(scale * q k)) v over each row's range: [B, L, H, K] in q's dtype, softmax in float32.

  Row i attends to the keys [first_i, last_i); where that is empty its output and gradients are 0. Query heads
  [g H/G, (g+1) H/G) share key head g (grouped-query attention, Ainslie et al. 2023). The soft cap is
  cap(s) = softcap * tanh(s / softcap). `implementation` names one; None picks one (`explain` says which). Keys and values
  stored as [B, G, S, K] and passed with their middle dimensions swapped are not copied; they may be int8 codes or pages
  (kernels.attention_held). Accelerators cast operands to `dtype` (None: no cast); the CPU computes in float32, which is faster.

  Raises: ValueError for shapes that do not fit, an unknown implementation, or one that cannot do this call.
  """
  _check(q_BLHK, k_BSGK, v_BSGK, ranges)
  narrow = None if jax.default_backend() == 'cpu' else dtype
  q = q_BLHK if narrow is None else q_BLHK.astype(narrow)
  k, v = (x.astype(narrow) if narrow is not None and isinstance(x, jax.Array) else x for x in (k_BSGK, v_BSGK))
  call = describe(q, k, ranges, softcap)
  name = choose(call).name if implementation is None else _able(implementation, call)
  form = FORMS[name]
  k, v = (x if form.holds else whole(x, q.dtype) for x in (k, v))
  return form.run(q, k, v, ranges, scale=scale, softcap=softcap).astype(q_BLHK.dtype)


def explain(q_BLHK: jax.Array | jax.ShapeDtypeStruct, k_BSGK: Held | jax.ShapeDtypeStruct, ranges: Ranges,
            softcap: float | None = None) -> Choice:
  """Which implementation `attention` picks for such a call, and why it does not pick a faster one."""
  return choose(describe(q_BLHK, k_BSGK, ranges, softcap))


def choose(call: Call) -> Choice:
  """The first implementation in the platform's order of preference that can do the call."""
  refused: dict[str, str] = {}
  for name in _order(call):
    why = 'it has not run on a chip yet: name it to use it' if name in UNTRIED else FORMS[name].refusal(call)
    if why is None:
      return Choice(name, refused)
    refused[name] = why
  raise AssertionError('the last form in every order refuses nothing')


def _order(call: Call) -> tuple[str, ...]:
  """The names in order of preference. On GPUs cuDNN comes first for full and causal attention without a window."""
  short, plain = call.queries < FEW_QUERIES, call.kind.exact and call.kind.before is None
  if call.platform == 'gpu':
    many = ('cudnn', 'hopper', 'triton', 'blocked') if plain else ('hopper', 'triton', 'cudnn', 'blocked')
    return ('decode', 'cudnn', 'blocked') if short else many
  if call.platform == 'tpu':
    return ('blocked',) if short else ('tpu', 'blocked')
  return ('few',) if short else ('blocked',)


def describe(q_BLHK: jax.Array | jax.ShapeDtypeStruct, k_BSGK: Held | jax.ShapeDtypeStruct, ranges: Ranges,
             softcap: float | None) -> Call:
  """The static facts of a call by which an implementation is chosen, on this machine."""
  platform = jax.default_backend()
  capability = float(getattr(jax.devices()[0], 'compute_capability', 0.0)) if platform == 'gpu' else 0.0
  return Call(q_BLHK.shape[1], k_BSGK.shape[1], q_BLHK.shape[3], str(q_BLHK.dtype), ranges.kind, softcap, platform,
              capability, devices())


def _able(name: str, call: Call) -> str:
  if name not in FORMS:
    raise ValueError(f'attention implementation {name!r} is unknown; choose from {", ".join(FORMS)}')
  why = FORMS[name].refusal(call)
  if why is not None:
    raise ValueError(f'attention by {name} cannot do this call: {why}')
  return name


def _check(q, k, v, ranges):
  if q.ndim != 4 or k.ndim != 4 or k.shape[:3] != v.shape[:3]:
    raise ValueError(f'attention takes q[B,L,H,K], k[B,S,G,K], v[B,S,G,K], not {q.shape}, {k.shape}, {v.shape}')
  if q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3] or q.shape[2] % k.shape[2]:
    raise ValueError(f'queries {q.shape} do not go with keys {k.shape}: B and K must agree, and G must divide H')
  if ranges.first_BL.shape != q.shape[:2] or ranges.last_BL.shape != q.shape[:2]:
    raise ValueError(f'ranges {ranges.first_BL.shape} do not go with queries {q.shape}: one range a row')
