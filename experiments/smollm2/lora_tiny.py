"""The same as `lora.py` in a few minutes on two cores: 40 steps of two rows, adapters of rank 8.

  python -m experiments.launch --config=experiments/smollm2/lora_tiny.py
  python -m experiments.sample --run=runs/smollm2-lora-tiny-... --prompt='Write a favourable one-line review of "Alien".'

Result (2026-11-27, two shared cores, 5 min 35 s, 95 tokens/s): held-out loss on answers 4.646 nats a token before, 3.995 after.
At temperature 0.7 it answers the second command: "It's a film that will appeal to audiences who don't have a pressing interest
in them being aliens."
"""

from dataclasses import replace

from experiments.smollm2.lora import get_config as large
from model.adapt import LoRA
from train.optimizer import AdamW, Optimizer
from train.run import Run, Saving, Watch
from train.schedule import Linear


def get_config() -> Run:
  return replace(large(), name='smollm2-lora-tiny', edits=(LoRA(8, alpha=16.0),), batch=2, steps=40,
                 optimizer=Optimizer(AdamW(lr=1e-3, weight_decay=0.0), Linear(warmup=5)),
                 watch=Watch(heldout=20, heldout_rows=8, metrics=4), saving=Saving(every=0))
