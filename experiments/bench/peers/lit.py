"""litgpt's GPT: `python -m experiments.bench.peers.lit FOLDER DTYPE eager|compiled`."""

import importlib.metadata
import sys
from pathlib import Path
from typing import Any

import torch
from litgpt.config import Config
from litgpt.model import GPT
from safetensors.torch import load_file

from experiments.bench.peers.torch_step import TorchTrain
from experiments.bench.task import INITIAL, TASK
from experiments.bench.worker import serve

NAMES = {'self_attn.o_proj': 'attn.proj', 'mlp.gate_proj': 'mlp.fc_1', 'mlp.up_proj': 'mlp.fc_2',
         'mlp.down_proj': 'mlp.proj', 'input_layernorm': 'norm_1', 'post_attention_layernorm': 'norm_2'}


class LitGPT(TorchTrain):
  """From our initial parameters."""

  def __init__(self, folder: Path, dtype: str, form: str):
    model = GPT(Config(
        block_size=TASK.length, vocab_size=TASK.vocab, padded_vocab_size=TASK.vocab, n_layer=TASK.layers,
        n_embd=TASK.width, n_head=TASK.heads, n_query_groups=TASK.heads, intermediate_size=TASK.hidden, bias=False,
        norm_class_name='RMSNorm', norm_eps=TASK.eps, mlp_class_name='LLaMAMLP', parallel_residual=False,
        rotary_percentage=1.0, rope_base=int(TASK.theta)))
    super().__init__(folder, TASK, model, model, dtype, form == 'compiled')

  def prepare(self) -> dict[str, Any]:
    self.model.load_state_dict(renamed(load_file(self.folder / INITIAL)))
    return super().prepare() | {'litgpt': importlib.metadata.version('litgpt')}


def renamed(params: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
  """The parameters of a LlamaForCausalLM under litgpt's names: queries, keys and values are one matrix."""
  out = {'transformer.wte.weight': params['model.embed_tokens.weight'], 'lm_head.weight': params['lm_head.weight'],
         'transformer.ln_f.weight': params['model.norm.weight']}
  for i in range(TASK.layers):
    theirs, mine = f'model.layers.{i}', f'transformer.h.{i}'
    out |= {f'{mine}.{new}.weight': params[f'{theirs}.{old}.weight'] for old, new in NAMES.items()}
    out[f'{mine}.attn.qkv.weight'] = torch.cat([params[f'{theirs}.self_attn.{x}_proj.weight'] for x in 'qkv'])
  return out


if __name__ == '__main__':
  folder, dtype, form = sys.argv[1:]
  serve(LitGPT(Path(folder), dtype, form))
