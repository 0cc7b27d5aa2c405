"""GRPO with the settings of DAPO (Yu et al. 2025) on grade-school mathematics of reasoning-gym, for the 1B chat model.

  pip install reasoning-gym
  python -m experiments.launch --config=experiments/grpo/llama_1b.py

That is: a mean over tokens, clip-higher, no KL penalty, truncated answers are masked out of the loss, and dynamic sampling,
which replaces questions whose answers are all right or all wrong. Its parent is `experiments/sft/llama_1b.py`. For one H100;
not run yet. `largest_tiny.py` is a recipe of this kind for two CPU cores.
"""

from align.average import PerToken
from align.credit import Grouped
from align.policy import GRPO
from align.questions import FromTask
from align.rewards import Part, Verified
from align.rollout import Ignored, Rollouts
from align.tasks import Gym
from experiments.sft.llama_1b import get_config as chat
from train.optimizer import AdamW, Optimizer
from train.run import Run, Saving, Watch
from train.schedule import Constant

TASK = Gym('gsm_symbolic')


def get_config() -> Run:
  parent = chat()
  rows = Rollouts(
      questions=FromTask(TASK, system='Work it out step by step. Give the number alone as the last line.'),
      rewards=(Part('right', Verified(TASK)),), vocabulary=parent.rows.vocabulary, credit=Grouped(), asked=64, group=16,
      prompt_tokens=384, answer_tokens=512, truncated=Ignored(), refill=3, lot=128)
  return Run(
      name='llama-1b-gsm-grpo', model=parent.model, restore=parent, rows=rows, objective=GRPO(average=PerToken(), high=0.28),
      batch=256, parts=32, steps=800, optimizer=Optimizer(AdamW(lr=1e-6, weight_decay=0.0), Constant(warmup=10)),
      compute=parent.compute, watch=Watch(heldout=40, heldout_rows=256), saving=Saving(every=40))
