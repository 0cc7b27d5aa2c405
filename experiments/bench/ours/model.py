"""The benchmark's model, step and rows as the project has them, and its initial parameters as its peers name them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from experiments.bench.task import BATCHES, TASK, Task
from kernels.attention import causal_ranges, explain, packed_ranges
from model.config import Attention, Compute, Decoder, Dtype, Gated, RMSNorm, Rotary
from model.decoder import Model
from train.build import Built, build
from train.objectives import NextToken, judged
from train.optimizer import AdamW, Optimizer
from train.schedule import Constant
from train.types import Objective

PARTS = 4                             # of the batch, one after another: the fastest of 1, 2, 4 and 8 here


@dataclass(frozen=True)
class Form:
  """How ours does a task. Packed rows tell their documents by segments, as a run's do; whole rows are one document each."""

  rows: Literal['packed', 'whole'] = 'packed'
  parts: int = PARTS
  stream: Dtype = 'float32'
  compute: Compute = Compute()


@dataclass(frozen=True)
class Whole(Objective):
  """The next token in rows that are one document each: nothing but the band is known of what they see."""

  def __call__(self, model: Model):
    def loss(params, frozen, batch, key):
      tokens = batch['tokens']
      hidden = model.hidden(params, tokens[:, :-1])
      return judged(model, params, hidden, tokens[:, 1:], jnp.ones(tokens[:, 1:].shape), 0.0)

    return loss


def decoder(task: Task, dtype: Dtype = 'float32', stream: Dtype = 'float32') -> Decoder:
  """The model of the task."""
  attention = Attention(task.heads, task.heads, task.width // task.heads)
  return Decoder(task.vocab, task.width, task.layers, attention, Gated(task.hidden), RMSNorm(task.eps),
                 positions=Rotary(task.theta), tied=False, compute_dtype=dtype, stream_dtype=stream)


def optimizer(task: Task) -> Optimizer:
  """The task's rule."""
  return Optimizer(AdamW(task.lr, task.b1, task.b2, task.adam_eps, task.weight_decay), Constant(), clip=task.clip)


def built(task: Task = TASK, dtype: Dtype = 'float32', form: Form = Form()) -> Built:
  """Its training, by the same door as a run's."""
  return build(decoder(task, dtype, form.stream), Whole() if form.rows == 'whole' else NextToken(), optimizer(task),
               10_000, batch=task.batch, length=task.length, parts=form.parts, compute=form.compute)


def attends(task: Task, dtype: Dtype, form: Form) -> str:
  """Which attention a part of its step takes, and why none before it, where its form does not name one."""
  if form.compute.attention != 'auto':
    return form.compute.attention
  rows = task.batch // form.parts
  q_BLHK = jax.ShapeDtypeStruct((rows, task.length, task.heads, task.width // task.heads), dtype)
  whole = form.rows == 'whole'
  return str(explain(q_BLHK, q_BLHK, causal_ranges(rows, task.length) if whole else packed_ranges(
    jnp.ones((rows, task.length), jnp.int32))))


def temporary_mb(compiled: Any) -> float:
  """What a compiled program needs beside its arguments and results."""
  return compiled.memory_analysis().temp_size_in_bytes / 1e6


def write_batches(folder: Path, task: Task = TASK, count: int = 16) -> None:
  """Batches that all contestants read in turn, i32[count, B, L + 1]: Zipf's law, and a chain that can be learnt."""
  random = np.random.default_rng(0)
  shape = (count, task.batch, task.length + 1)
  fresh = np.minimum(random.zipf(1.2, shape), task.vocab) - 1
  tokens = fresh.copy()
  for place in range(1, shape[2]):
    follows = (tokens[..., place - 1] * 7 + 1) % task.vocab
    tokens[..., place] = np.where(random.random(shape[:2]) < 0.5, follows, fresh[..., place])
  np.save(folder / BATCHES, tokens.astype(np.int32))


def export(params: Any, path: Path, task: Task) -> None:
  """Writes parameters under the names of a LlamaForCausalLM, matrices as [outputs, inputs].

  Rotary pairs are (i, i + K/2) on both sides, so that nothing is permuted.
  """
  layers = params['layers']
  out = {'model.embed_tokens.weight': params['embedding']['table'], 'model.norm.weight': params['norm']['scale'],
         'lm_head.weight': params['head']['weight'].T}
  for i in range(task.layers):
    qkv_DGRK = layers['attention']['qkv']['weight'][i]
    gates_D2F, name = layers['mlp']['up']['weight'][i], f'model.layers.{i}'
    for slot, letter in enumerate('qkv'):
      out[f'{name}.self_attn.{letter}_proj.weight'] = qkv_DGRK[:, :, slot].reshape(task.width, -1).T
    out[f'{name}.self_attn.o_proj.weight'] = layers['attention']['out']['weight'][i].reshape(-1, task.width).T
    out[f'{name}.mlp.gate_proj.weight'], out[f'{name}.mlp.up_proj.weight'] = gates_D2F[:, 0].T, gates_D2F[:, 1].T
    out[f'{name}.mlp.down_proj.weight'] = layers['mlp']['down']['weight'][i].T
    out[f'{name}.input_layernorm.weight'] = layers['attention_norm']['scale'][i]
    out[f'{name}.post_attention_layernorm.weight'] = layers['mlp_norm']['scale'][i]
  save_file({name: np.ascontiguousarray(array, np.float32) for name, array in out.items()}, path)


