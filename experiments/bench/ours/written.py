"""Our greedy decoding on a GPU, of random weights: `python -m experiments.bench.ours.written [quick]`.

A JSON line for each number of rows and kind of weights, as soon as it is measured. A step is what a longer answer takes more
than a shorter one, so that reading the prompt counts for nothing; the bytes are those that each step cannot help reading.
"""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp

from experiments.bench.ours.model import decoder
from experiments.bench.task import TASKS, WRITTEN, Writing
from model.decoder import Model, Params, build
from model.generate import generate
from model.quantize import Quantize
from model.sampling import Sampling
from model.sharding import unbox

FORMS: dict[str, Any] = {'bfloat16': None, 'int8': Quantize('int8'), 'nf4': Quantize('nf4')}


def model_of(writing: Writing) -> Model:
  return build(replace(decoder(TASKS[writing.task], 'bfloat16'), stream_dtype='bfloat16'))


def params_of(model: Model, form: str) -> Params:
  """Random parameters as serving keeps them: matrices in bfloat16, or in few bits."""
  def make(key):
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), unbox(model.init(key)))
    edit = FORMS[form]
    return params if edit is None else edit(params, key)

  return jax.jit(make)(jax.random.key(0))


def seconds(model: Model, params: Params, writing: Writing) -> float:
  """Of one step of all rows: the median over turns."""
  prompts = [[(7 * row + place) % 1000 + 1 for place in range(writing.prompt)] for row in range(writing.rows)]

  def once(count: int) -> float:
    begin = time.perf_counter()
    generate(model, params, prompts, max_new=count, sampling=Sampling(0.0), key=jax.random.key(0))
    return time.perf_counter() - begin

  few, many = writing.answer // 4, writing.answer
  once(few), once(many)
  return median((once(many) - once(few)) / (many - few) for _ in range(3))


def read(params: Params, writing: Writing, model: Model) -> int:
  """Bytes of a step: every weight but the embedding's, and keys and values of the prompt and half of the answer."""
  weights = sum(x.nbytes for name, part in params.items() if name != 'embedding' for x in jax.tree.leaves(part))
  heads, layers = model.config.attention, model.config.layers
  kept = writing.rows * (writing.prompt + 5 * writing.answer // 8)
  return weights + 2 * 2 * layers * kept * heads.kv_heads * heads.head_size


def lines(quick: bool) -> Iterator[dict[str, Any]]:
  for writing in WRITTEN['tiny' if quick else '1b']:
    model = model_of(writing)
    for form in FORMS:
      line = {'form': f'ours {form}', 'rows': writing.rows}
      try:
        params = params_of(model, form)
        took, size = seconds(model, params, writing), read(params, writing, model)
        line |= {'seconds': took, 'tokens_per_s': writing.rows / took, 'bytes': size, 'gb_per_s': size / took / 1e9}
      except Exception as error:       # one that fails leaves the others to be measured
        line['failed'] = str(error)[:500]
      yield line


if __name__ == '__main__':
  for each in lines('quick' in sys.argv[1:]):
    print(json.dumps(each), flush=True)
