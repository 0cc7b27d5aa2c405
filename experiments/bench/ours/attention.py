"""Our attention in bfloat16, by the door's choice and by the other forms that can: `python -m ... ours.attention [quick]`.

A JSON line for each form and shape, as soon as it is measured.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench.sights import BOTH, FORWARD, Sight, Window, sights
from experiments.bench.worker import pace
from kernels.attention import FORMS, Ranges, attention, causal_ranges, describe, explain, packed_ranges

FAST = ('hopper', 'triton', 'cudnn')
Attend = Callable[[jax.Array, jax.Array, jax.Array, Ranges], jax.Array]


class Case(NamedTuple):
  """One form on one shape, forward alone or with the backward pass."""

  sight: Sight
  form: str
  attend: Attend
  backward: bool
  chosen: bool = False                 # whether the door takes this form


def cases(quick: bool) -> Iterator[Case]:
  """The door's choice first."""
  for sight in sights(quick):
    q_BLHK, ranges = shape(sight), ranges_of(sight, jnp.asarray(sight.segments()))
    choice, call = explain(q_BLHK, q_BLHK, ranges).name, describe(q_BLHK, q_BLHK, ranges, None)
    for form in (choice, *(form for form in FAST if form != choice and FORMS[form].refusal(call) is None)):
      attend = partial(attention, scale=scale_of(sight), implementation=form)
      yield from (Case(sight, f'ours {form}', attend, backward, form == choice) for backward in (False, True))


def shape(sight: Sight) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct((sight.batch, sight.length, sight.heads, sight.head_size), jnp.bfloat16)


def scale_of(sight: Sight) -> float:
  return sight.head_size ** -0.5


def ranges_of(sight: Sight, segments: jax.Array) -> Ranges:
  """What its rows see."""
  if sight.packed:
    return packed_ranges(segments)
  return causal_ranges(sight.batch, sight.length, sight.window if isinstance(sight, Window) else None)


def program(case: Case) -> Callable[..., Any]:
  """The compiled call: q, k, v and the gradient of the result to the result, or to it and its three gradients."""
  def forward(segments, q, k, v):
    return case.attend(q, k, v, ranges_of(case.sight, segments))

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


def measure(asked: Iterable[Case]) -> None:
  """Compiles side by side, measures one after another, and prints a line for each."""
  asked = list(asked)
  with ThreadPoolExecutor(8) as pool:
    programs = [pool.submit(program, case) for case in asked]
    for case, made in zip(asked, programs):
      line = {'sight': case.sight.name, 'form': case.form, 'chosen': case.chosen, 'backward': case.backward}
      try:
        line |= measured(case, made.result())
      except Exception as error:       # one form that fails leaves the others to be measured
        line['failed'] = str(error)[:500]
      print(json.dumps(line), flush=True)


if __name__ == '__main__':
  measure(cases('quick' in sys.argv[1:]))
