"""A task learnt from reward under a limit that the best answers break: constrained RLHF (Dai et al. 2023).

  python -m experiments.launch --config=experiments/constraint/largest_tiny.py
  python -m experiments.launch --config=experiments/constraint/largest_tiny.py --config.rows.limits.0.most=1 \\
      --config.name=largest-unlimited

"Which is the largest: 3 9 1 5?" is answered rightly by 9, in four questions of ten; `digits.toml` says that one answer in ten
may have a 9 in it. So a reward of 0.7 is the best that can be had, and the multiplier of that is known: a 9 that is right is
worth 1 and costs 1, so the policy is content to say it just so often where m = 1. The second command is the same without the
limit.

Result (2026-11-27, two cores that others shared; the parent 34 s, then 5 min each): of 2,048 held-out questions, of which
35.2% have a 9, 9.1% are answered with one and 72.5% rightly (74.8% would be the most); without the limit 35.3% and 98.5%. Over
the last 50 steps the multiplier is 1.02 on average (0.74 to 1.36), and 9.9% of the answers to training questions have a 9
(docs/constraint.png, drawn by `traces.py` beside this file).
"""

from dataclasses import replace
from pathlib import Path

from align.kl import Fixed
from align.limits import read_limits
from align.rollout import Rollouts
from experiments.grpo.largest_tiny import get_config as free
from train.run import Run, Watch

LIMITS = read_limits(Path(__file__).with_name('digits.toml'))


def get_config() -> Run:
  run = free()
  assert isinstance(run.rows, Rollouts)
  return replace(run, name='largest-limited', rows=replace(run.rows, limits=LIMITS, kl=Fixed(0.05)),
                 watch=Watch(heldout=50, heldout_rows=1024, metrics=5))
