"""Our greedy decoding on a GPU, of random weights: `python -m experiments.bench.ours.written [quick]`.

A JSON line for each kind of weights and number of rows, as soon as it is measured, those first that matter most: as the doors
choose, and with the kernels that no chip has seen. A step is what a longer answer takes more than a shorter one by the same
programs, so that reading the prompt counts for nothing; the bytes are those that each step cannot help reading, and a copy
reads as many a second and writes them (experiments.bench.ours.ceilings).
"""

import json
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp

from experiments.bench.ours.model import decoder
from experiments.bench.task import TASKS, WRITTEN, Writing
from kernels import attention, lowbit
from model.decoder import Model, Params, build
from model.generate import generate, lay_out
from model.quantize import Quantize
from model.sampling import Sampling
from model.sharding import unbox

KINDS: dict[str, Any] = {'bfloat16': None, 'int8': Quantize('int8'), 'nf4': Quantize('nf4')}
# Weights, and whether by kernels that the doors do not take yet. One row asks for what comes first here, many rows likewise.
FORMS = (('bfloat16', False), ('int8', True), ('bfloat16', True), ('int8', False), ('nf4', True), ('nf4', False))


@contextmanager
def untried() -> Iterator[None]:
  """Within it the doors choose as if every kernel had been seen on a chip."""
  kept = attention.UNTRIED, lowbit.UNTRIED
  attention.UNTRIED = lowbit.UNTRIED = frozenset()
  try:
    yield
  finally:
    attention.UNTRIED, lowbit.UNTRIED = kept


def model_of(writing: Writing) -> Model:
  """Anew each time, since what was traced of it keeps what the doors chose."""
  return build(decoder(TASKS[writing.task], 'bfloat16', stream='bfloat16'))


@lru_cache
def params_of(task: str, kind: str) -> Params:
  """Parameters as serving keeps them: matrices in bfloat16, or in few bits.

  Of even noise, for what is in them takes no time: normal numbers take the compiler longer than all that is measured.
  """
  model = model_of(Writing(task, 1))

  def make(key):
    leaves, tree = jax.tree.flatten(jax.eval_shape(lambda key: unbox(model.init(key)), key))
    params = jax.tree.unflatten(tree, [noise(number, leaf.shape) for number, leaf in enumerate(leaves)])
    edit = KINDS[kind]
    return params if edit is None else edit(params, key)

  return jax.jit(make)(jax.random.key(0))


def noise(seed: int, shape: tuple[int, ...]) -> jax.Array:
  """bf16[shape], even in [-0.05, 0.05], by a hash of the place."""
  place = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape) * jnp.uint32(0x9E3779B1) + jnp.uint32(seed)
  mixed = (place ^ (place >> 15)) * jnp.uint32(0x2C1B3C6D)
  return (0.1 * ((mixed >> 8).astype(jnp.float32) * 2.0 ** -24 - 0.5)).astype(jnp.bfloat16)


def seconds(model: Model, params: Params, writing: Writing) -> float:
  """Of one step of all rows: the median over turns."""
  prompts = [[(7 * row + place) % 1000 + 1 for place in range(writing.prompt)] for row in range(writing.rows)]
  ready = lay_out(model, params, alone=writing.rows == 1)

  def once(count: int) -> float:
    begin = time.perf_counter()
    generate(model, ready, prompts, max_new=count, sampling=Sampling(0.0), key=jax.random.key(0))
    return time.perf_counter() - begin

  few, many = writing.answer // 2 + 1, writing.answer      # which are rounded up to the same programs
  once(few), once(many)
  return median((once(many) - once(few)) / (many - few) for _ in range(5))


def read(params: Params, writing: Writing, model: Model) -> int:
  """Bytes of a step: every weight but the embedding's, and keys and values of the prompt and three quarters of the answer."""
  weights = sum(x.nbytes for name, part in params.items() if name != 'embedding' for x in jax.tree.leaves(part))
  heads, layers = model.config.attention, model.config.layers
  kept = writing.rows * (writing.prompt + 3 * writing.answer // 4)
  return weights + 2 * 2 * layers * kept * heads.kv_heads * heads.head_size


def lines(quick: bool) -> Iterator[dict[str, Any]]:
  for writing in WRITTEN['tiny' if quick else '1b']:
    for kind, every in FORMS:
      line = {'form': f'ours {kind}{", untried kernels" if every else ""}', 'rows': writing.rows}
      try:
        with untried() if every else nullcontext():
          model, params = model_of(writing), params_of(writing.task, kind)
          took, size = seconds(model, params, writing), read(params, writing, model)
        line |= {'seconds': took, 'tokens_per_s': writing.rows / took, 'bytes': size, 'gb_per_s': size / took / 1e9}
      except Exception as error:       # one that fails leaves the others to be measured
        line['failed'] = str(error)[:500]
      yield line


if __name__ == '__main__':
  for each in lines('quick' in sys.argv[1:]):
    print(json.dumps(each), flush=True)
