"""RLHF by PPO (Ouyang et al. 2022) of the 1B Llama on one GPU: four models share one base in 4 bits.

  python -m experiments.launch --config=experiments/ppo/llama_1b.py
  python -m experiments.launch --config=experiments/ppo/llama_1b.py --dry_run

Policy, critic and reward model (`experiments/reward/llama_1b.py`) are adapters on the weights of `experiments/sft/llama_1b.py`,
and the reference model is those weights alone: `--dry_run` shows the memory of one base and three sets of adapters. For one
H100; not run yet.
"""

from align.credit import FromCritic
from align.critic import Critic
from align.kl import Adaptive
from align.modelled import Modelled, Scale
from align.policy import PPO
from align.questions import FromTalks
from align.rewards import Part
from align.rollout import Charged, Rollouts
from experiments.reward.llama_1b import reward
from experiments.sft.chitchat import TALKS
from experiments.sft.llama_1b import get_config as chat
from model.adapt import LoRA
from model.quantize import Quantize
from train.optimizer import AdamW, Optimizer
from train.run import Run, Saving, Watch
from train.schedule import Linear


def get_config() -> Run:
  parent = chat()
  liked = Modelled(Scale(name='llama-1b-reward-scale', run=reward(parent)))
  rows = Rollouts(
      questions=FromTalks(TALKS), rewards=(Part('liked', liked),), vocabulary=parent.rows.vocabulary, credit=FromCritic(),
      asked=256, group=1, epochs=2, prompt_tokens=512, answer_tokens=256, kl=Adaptive(0.05, target=6.0, horizon=10_000),
      truncated=Charged(1.0), lot=64)
  return Run(
      name='llama-1b-ppo', model=parent.model, restore=parent, edits=(Quantize(), LoRA(rank=16, alpha=32.0), Critic()),
      rows=rows, objective=PPO(), batch=64, parts=8, steps=800,
      optimizer=Optimizer(AdamW(lr=5e-5, weight_decay=0.0), Linear(warmup=20)), compute=parent.compute,
      watch=Watch(heldout=80, heldout_rows=128), saving=Saving(every=80))
