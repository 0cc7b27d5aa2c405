"""Our attention in bfloat16, by the door's choice and by the other forms that can: `python -m ... ours.attention [quick]`.

A JSON line for each form and shape, as soon as it is measured.
"""

import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench.sights import BOTH, FORWARD, Sight, sights
from experiments.bench.worker import pace
from kernels.attention import FORMS, attention, causal_ranges, describe, explain, packed_ranges

FAST = ('cudnn', 'blocked')


class Case(NamedTuple):
  """One form on one shape, forward alone or with the backward pass."""

  sight: Sight
  form: str
  chosen: bool                         # whether the door takes this form
  backward: bool


def cases(quick: bool) -> Iterator[Case]:
  """The door's choice first."""
  for sight in sights(quick):
    q_BLHK, ranges = shape(sight), seen(sight)
    choice, call = explain(q_BLHK, q_BLHK, ranges).name, describe(q_BLHK, q_BLHK, ranges, None)
    others = [form for form in FAST if form != choice and FORMS[form].refusal(call) is None]
    for form in (choice, *others):
      yield from (Case(sight, form, form == choice, backward) for backward in (False, True))


def shape(sight: Sight) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct((sight.batch, sight.length, sight.heads, sight.head_size), jnp.bfloat16)


def seen(sight: Sight):
  """The ranges of its rows."""
  return packed_ranges(jnp.asarray(sight.segments())) if sight.packed else causal_ranges(sight.batch, sight.length)


def program(case: Case) -> Callable[..., Any]:
  """The compiled call: q, k, v and the gradient of the result to the result, or to it and its three gradients."""
  def forward(segments, q, k, v):
    ranges = packed_ranges(segments) if case.sight.packed else causal_ranges(case.sight.batch, case.sight.length)
    return attention(q, k, v, ranges, scale=case.sight.head_size ** -0.5, implementation=case.form)

  def both(segments, q, k, v, g):
    out, pull = jax.vjp(lambda q, k, v: forward(segments, q, k, v), q, k, v)
    return out, *pull(g)

  x, segments = shape(case.sight), jax.ShapeDtypeStruct((case.sight.batch, case.sight.length), np.int32)
  return jax.jit(both if case.backward else forward).lower(segments, *[x] * (4 if case.backward else 3)).compile()


def measured(case: Case, call: Callable[..., Any]) -> dict[str, Any]:
  """Seconds of a call and TFLOP/s of live scores."""
  x = shape(case.sight)
  keys = jax.random.split(jax.random.key(0), 4 if case.backward else 3)
  data = [jax.random.normal(key, x.shape, x.dtype) for key in keys]
  segments = jnp.asarray(case.sight.segments())
  seconds = pace(lambda: call(segments, *data), jax.block_until_ready)
  flops = case.sight.flops(BOTH if case.backward else FORWARD)
  return {'seconds': seconds, 'tflops': flops / seconds / 1e12}


def main(quick: bool) -> None:
  """Compiles side by side, measures one after another."""
  asked = list(cases(quick))
  with ThreadPoolExecutor(8) as pool:
    programs = [pool.submit(program, case) for case in asked]
  for case, made in zip(asked, programs):
    line = {'sight': case.sight.name, 'form': f'ours {case.form}', 'chosen': case.chosen, 'backward': case.backward}
    try:
      line |= measured(case, made.result())
    except Exception as error:         # one form that fails leaves the others to be measured
      line['failed'] = str(error)[:500]
    print(json.dumps(line), flush=True)


if __name__ == '__main__':
  main('quick' in sys.argv[1:])
