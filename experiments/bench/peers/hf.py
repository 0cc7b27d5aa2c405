"""Hugging Face's Llama: `python -m experiments.bench.peers.hf FOLDER DTYPE eager|compiled`."""

import sys
from pathlib import Path
from typing import Any

import transformers
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from experiments.bench.peers.torch_step import TorchTrain
from experiments.bench.task import INITIAL, TASK
from experiments.bench.worker import serve


class HuggingFace(TorchTrain):
  """With scaled-dot-product attention, from our initial parameters."""

  def __init__(self, folder: Path, dtype: str, form: str):
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=TASK.vocab, hidden_size=TASK.width, num_hidden_layers=TASK.layers, num_attention_heads=TASK.heads,
        num_key_value_heads=TASK.heads, intermediate_size=TASK.hidden, max_position_embeddings=TASK.length,
        rms_norm_eps=TASK.eps, rope_theta=TASK.theta, tie_word_embeddings=False, use_cache=False,
        attn_implementation='sdpa'))
    super().__init__(folder, model, lambda inputs: model(input_ids=inputs).logits, dtype, form == 'compiled')

  def prepare(self) -> dict[str, Any]:
    self.model.load_state_dict(load_file(self.folder / INITIAL))
    return super().prepare() | {'transformers': transformers.__version__}


if __name__ == '__main__':
  folder, dtype, form = sys.argv[1:]
  serve(HuggingFace(Path(folder), dtype, form))
