"""QLoRA (Dettmers et al. 2023) of the 1B Llama: the fine-tuning of `experiments/sft/llama_1b.py`, with adapters.

  python -m experiments.launch --config=experiments/lora/llama_1b.py

The base is quantised to 4 bits and frozen. For one GPU of 16 GB or more; not run yet. `experiments/lora/sotu_tiny.py` is a
recipe of this kind for two CPU cores.
"""

from dataclasses import replace

from experiments.sft.llama_1b import get_config as sft
from model.adapt import LoRA
from model.quantize import Quantize
from train.optimizer import AdamW, Optimizer
from train.run import Run
from train.schedule import Linear


def get_config() -> Run:
  return replace(sft(), name='llama-1b-chat-qlora', parts=16, edits=(Quantize(), LoRA(rank=16, alpha=32.0, dropout=0.05)),
                 optimizer=Optimizer(AdamW(lr=2e-4, weight_decay=0.0), Linear(warmup=10)))
