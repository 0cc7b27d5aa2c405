"""Hugging Face's Llama: `python -m experiments.bench.peers.hf FOLDER TASK DTYPE eager|compiled [compile]`."""

from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from experiments.bench.peers.torch_step import DEVICE, TorchTrain, main
from experiments.bench.task import INITIAL, Task


def config(task: Task, **more: Any) -> LlamaConfig:
  """That of the task's model."""
  return LlamaConfig(**dict(
    vocab_size=task.vocab, hidden_size=task.width, num_hidden_layers=task.layers, num_attention_heads=task.heads,
    num_key_value_heads=task.heads, intermediate_size=task.hidden, max_position_embeddings=task.length,
    rms_norm_eps=task.eps, rope_theta=task.theta, tie_word_embeddings=False, attn_implementation='sdpa') | more)


class HuggingFace(TorchTrain):
  """With scaled-dot-product attention, from our initial parameters."""

  def __init__(self, folder: Path, task: Task, dtype: str, form: str):
    with torch.device(DEVICE):
      model = LlamaForCausalLM(config(task, use_cache=False))
    super().__init__(folder, task, model, lambda inputs: model(input_ids=inputs).logits, dtype, form == 'compiled')

  def prepare(self) -> dict[str, Any]:
    self.model.load_state_dict(load_file(self.folder / INITIAL, device=DEVICE))
    return super().prepare() | {'transformers': transformers.__version__}


if __name__ == '__main__':
  main(HuggingFace)
