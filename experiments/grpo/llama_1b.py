"""GRPO with DAPO's choices (Yu et al. 2025) on grade-school mathematics of reasoning-gym, at 1.2 billion parameters.

  pip install reasoning-gym
  python -m experiments.launch --config=experiments/grpo/llama_1b.py

The token mean, clip-higher, no price of distance, answers that are cut off teach nothing, questions whose answers are all right
or all wrong give way to others. It goes on from `experiments/sft/llama_1b.py`. Meant for one H100; not run yet. Its `_tiny`
sibling is `largest_tiny.py`.
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
