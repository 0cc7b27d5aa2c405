"""litgpt's GPT: `python -m experiments.bench.peers.lit FOLDER TASK DTYPE eager|compiled [compile]`."""

import importlib.metadata
from pathlib import Path
from typing import Any

import torch
from litgpt.config import Config
from litgpt.model import GPT
from safetensors.torch import load_file

from experiments.bench.peers.torch_step import TorchTrain, main
from experiments.bench.task import INITIAL, Task

NAMES = {'self_attn.o_proj': 'attn.proj', 'mlp.gate_proj': 'mlp.fc_1', 'mlp.up_proj': 'mlp.fc_2',
         'mlp.down_proj': 'mlp.proj', 'input_layernorm': 'norm_1', 'post_attention_layernorm': 'norm_2'}


class LitGPT(TorchTrain):
  """From our initial parameters."""

  def __init__(self, folder: Path, task: Task, dtype: str, form: str):
    model = GPT(Config(
        block_size=task.length, vocab_size=task.vocab, padded_vocab_size=task.vocab, n_layer=task.layers,
        n_embd=task.width, n_head=task.heads, n_query_groups=task.heads, intermediate_size=task.hidden, bias=False,
        norm_class_name='RMSNorm', norm_eps=task.eps, mlp_class_name='LLaMAMLP', parallel_residual=False,
        rotary_percentage=1.0, rope_base=int(task.theta)))
    super().__init__(folder, task, model, model, dtype, form == 'compiled')

  def prepare(self) -> dict[str, Any]:
    self.model.load_state_dict(renamed(load_file(self.folder / INITIAL), self.task.layers))
    return super().prepare() | {'litgpt': importlib.metadata.version('litgpt')}


def renamed(params: dict[str, torch.Tensor], layers: int) -> dict[str, torch.Tensor]:
  """The parameters of a LlamaForCausalLM under litgpt's names: queries, keys and values are one matrix."""
  out = {'transformer.wte.weight': params['model.embed_tokens.weight'], 'lm_head.weight': params['lm_head.weight'],
         'transformer.ln_f.weight': params['model.norm.weight']}
  for i in range(layers):
    theirs, mine = f'model.layers.{i}', f'transformer.h.{i}'
    out |= {f'{mine}.{new}.weight': params[f'{theirs}.{old}.weight'] for old, new in NAMES.items()}
    out[f'{mine}.attn.qkv.weight'] = torch.cat([params[f'{theirs}.self_attn.{x}_proj.weight'] for x in 'qkv'])
  return out


if __name__ == '__main__':
  main(LitGPT)
