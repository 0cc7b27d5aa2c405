"""The benchmark's model, step and rows as the project has them, and its initial parameters as its peers name them."""

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from experiments.bench.task import BATCHES, TASK
from model.config import Attention, Decoder, Dtype, Gated, RMSNorm, Rotary
from train.build import Built, build
from train.objectives import NextToken
from train.optimizer import AdamW, Optimizer
from train.schedule import Constant

PARTS = 4                             # of the batch, one after another: the fastest of 1, 2, 4 and 8 here


def decoder(dtype: Dtype = 'float32') -> Decoder:
  """The model of the task."""
  attention = Attention(TASK.heads, TASK.heads, TASK.width // TASK.heads)
  return Decoder(TASK.vocab, TASK.width, TASK.layers, attention, Gated(TASK.hidden), RMSNorm(TASK.eps),
                 positions=Rotary(TASK.theta), tied=False, compute_dtype=dtype)


def built(dtype: Dtype = 'float32', parts: int = PARTS) -> Built:
  """Its training, by the same door as a run's."""
  rule = AdamW(TASK.lr, TASK.b1, TASK.b2, TASK.adam_eps, TASK.weight_decay)
  return build(decoder(dtype), NextToken(), Optimizer(rule, Constant(), clip=TASK.clip), 10_000, batch=TASK.batch,
               length=TASK.length, parts=parts)


def temporary_mb(compiled: Any) -> float:
  """What a compiled program needs beside its arguments and results."""
  return compiled.memory_analysis().temp_size_in_bytes / 1e6


def write_batches(folder: Path, count: int = 16) -> None:
  """Batches that all contestants read in turn, i32[count, B, L + 1]: Zipf's law, and a chain that can be learnt."""
  random = np.random.default_rng(0)
  shape = (count, TASK.batch, TASK.length + 1)
  fresh = np.minimum(random.zipf(1.2, shape), TASK.vocab) - 1
  tokens = fresh.copy()
  for place in range(1, shape[2]):
    follows = (tokens[..., place - 1] * 7 + 1) % TASK.vocab
    tokens[..., place] = np.where(random.random(shape[:2]) < 0.5, follows, fresh[..., place])
  np.save(folder / BATCHES, tokens.astype(np.int32))


def export(params: Any, path: Path) -> None:
  """Writes parameters under the names of a LlamaForCausalLM, matrices as [outputs, inputs].

  Rotary pairs are (i, i + K/2) on both sides, so that nothing is permuted.
  """
  layers = params['layers']
  out = {'model.embed_tokens.weight': params['embedding']['table'], 'model.norm.weight': params['norm']['scale'],
         'lm_head.weight': params['head']['weight'].T}
  for i in range(TASK.layers):
    qkv_DGRK = layers['attention']['qkv']['weight'][i]
    gates_D2F, name = layers['mlp']['up']['weight'][i], f'model.layers.{i}'
    for slot, letter in enumerate('qkv'):
      out[f'{name}.self_attn.{letter}_proj.weight'] = qkv_DGRK[:, :, slot].reshape(TASK.width, -1).T
    out[f'{name}.self_attn.o_proj.weight'] = layers['attention']['out']['weight'][i].reshape(-1, TASK.width).T
    out[f'{name}.mlp.gate_proj.weight'], out[f'{name}.mlp.up_proj.weight'] = gates_D2F[:, 0].T, gates_D2F[:, 1].T
    out[f'{name}.mlp.down_proj.weight'] = layers['mlp']['down']['weight'][i].T
    out[f'{name}.input_layernorm.weight'] = layers['attention_norm']['scale'][i]
    out[f'{name}.post_attention_layernorm.weight'] = layers['mlp_norm']['scale'][i]
  save_file({name: np.ascontiguousarray(array, np.float32) for name, array in out.items()}, path)


