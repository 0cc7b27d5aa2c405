"""A reward model from the 1B chat model with QLoRA, trained on people's ratings of their own conversations.

  python -m experiments.launch --config=experiments/reward/llama_1b.py

Its parent is `experiments/sft/llama_1b.py`; it reads whole conversations, up to 1,024 tokens. For one H100; not run yet.
`chitchat_tiny.py` and `reviews_tiny.py` are recipes of this kind for two CPU cores.
"""

from align.pair_report import Agreement
from align.pair_rows import PairRows
from align.reward import RewardModel, Score
from experiments.reward.chitchat_tiny import pairs
from experiments.sft.llama_1b import get_config as chat
from model.adapt import LoRA
from model.quantize import Quantize
from train.optimizer import AdamW, Optimizer
from train.run import Run, Saving, Watch
from train.schedule import Linear


def reward(parent: Run) -> Run:
  """The training run of the reward model, from `parent`."""
  return Run(
      name='llama-1b-reward', model=parent.model, restore=parent, edits=(Quantize(), LoRA(rank=16, alpha=32.0), Score()),
      rows=PairRows(pairs(parent, 1024)), objective=RewardModel(margin=0.1, centring=0.01), batch=32, parts=4, steps=300,
      optimizer=Optimizer(AdamW(lr=1e-4, weight_decay=0.0), Linear(warmup=20)), compute=parent.compute,
      watch=Watch(heldout=50, heldout_rows=256), saving=Saving(every=100))


def get_config() -> Agreement:
  return Agreement(name='llama-1b-reward-agreement', run=reward(chat()))
