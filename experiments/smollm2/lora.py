"""LoRA fine-tuning of SmolLM2-135M to write film reviews: rank 16, one epoch of 10,000 reviews by critics, on one GPU.

  python -m experiments.launch --config=experiments/smollm2/lora.py

Not run yet on a GPU; `lora_tiny.py` is the same in minutes on a CPU.
"""

from align.sft import ChatTokens
from experiments.sft.reviews_tiny import REVIEWS
from experiments.smollm2.chat import VOCABULARY
from experiments.smollm2.chat import get_config as smollm2
from model.adapt import LoRA
from train.data.pack import Whole
from train.data.rows import Rows
from train.optimizer import AdamW, Optimizer
from train.run import Run, Saving, Watch
from train.schedule import Linear


def get_config() -> Run:
  parent = smollm2()
  assert parent.template is not None
  tokens = ChatTokens(name='smollm2-reviews', corpus=REVIEWS, vocabulary=VOCABULARY, template=parent.template, longest=257)
  return Run(name='smollm2-lora', model=parent.model, restore=parent, edits=(LoRA(16, alpha=32.0),),
             rows=Rows(tokens, length=256, packing=Whole()), batch=16, steps=200,
             optimizer=Optimizer(AdamW(lr=5e-4, weight_decay=0.0), Linear(warmup=10)),
             watch=Watch(heldout=50, heldout_rows=64), saving=Saving(every=100))
