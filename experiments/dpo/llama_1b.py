"""DPO (Rafailov et al. 2023) of the 1B chat model with LoRA; the model without adapters is the reference.

  python -m experiments.launch --config=experiments/dpo/llama_1b.py

Its parent is `experiments/sft/llama_1b.py`. For one H100; not run yet. `chitchat_tiny.py` and `reviews_tiny.py` are recipes of
this kind for two CPU cores.
"""

from align.dpo import DPO
from align.pair_report import Agreement
from align.pair_rows import PairRows
from experiments.reward.chitchat_tiny import pairs
from experiments.sft.llama_1b import get_config as chat
from model.adapt import LoRA
from train.optimizer import AdamW, Optimizer
from train.run import Run, Saving, Watch
from train.schedule import Linear


def get_config() -> Agreement:
  parent = chat()
  run = Run(
      name='llama-1b-dpo', model=parent.model, restore=parent, edits=(LoRA(rank=16, alpha=32.0),),
      rows=PairRows(pairs(parent, 1024)), objective=DPO(beta=0.1), batch=32, parts=8, steps=300,
      optimizer=Optimizer(AdamW(lr=5e-5, weight_decay=0.0), Linear(warmup=30)), compute=parent.compute,
      watch=Watch(heldout=50, heldout_rows=256), saving=Saving(every=100))
  return Agreement(name='llama-1b-dpo-agreement', run=run)
