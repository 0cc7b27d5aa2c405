"""The same as `dpo.py` in a few minutes on two cores, after `lora_tiny.py`: 24 steps of four pairs of 96 tokens a side.

  python -m experiments.launch --config=experiments/smollm2/dpo_tiny.py
"""

from dataclasses import replace

from experiments.smollm2.dpo import preferred
from experiments.smollm2.lora_tiny import get_config as critic
from model.adapt import LoRA, Merge
from train.optimizer import AdamW, Optimizer
from train.run import Run, Saving, Watch
from train.schedule import Linear


def get_config() -> Run:
  return replace(preferred(critic(), longest=96), name='smollm2-dpo-tiny', edits=(Merge(), LoRA(8, alpha=16.0)), batch=4,
                 parts=1, steps=24, optimizer=Optimizer(AdamW(lr=5e-4, weight_decay=0.0), Linear(warmup=3)),
                 watch=Watch(heldout=12, heldout_rows=24, metrics=2), saving=Saving(every=0))
