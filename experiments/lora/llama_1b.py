"""QLoRA (Dettmers et al. 2023) of the Llama of 1.2 billion parameters: what `experiments/sft/llama_1b.py` learns, by adapters.

  python -m experiments.launch --config=experiments/lora/llama_1b.py

The base is held in 4 bits and gets no gradient; meant for one GPU of 16 GB or more. Not run yet. Its `_tiny` sibling is
`experiments/lora/sotu_tiny.py`.
"""

from dataclasses import replace

from experiments.sft.llama_1b import get_config as taught
from model.adapt import LoRA
from model.quantize import Quantize
from train.optimizer import AdamW, Optimizer
from train.run import Run
from train.schedule import Linear


def get_config() -> Run:
  return replace(taught(), name='llama-1b-chat-qlora', parts=16, edits=(Quantize(), LoRA(rank=16, alpha=32.0, dropout=0.05)),
                 optimizer=Optimizer(AdamW(lr=2e-4, weight_decay=0.0), Linear(warmup=10)))
