"""Constrained RLHF (Dai et al. 2023) on a task whose best answers break the limit; the right multiplier is known.

  python -m experiments.launch --config=experiments/constraint/largest_tiny.py
  python -m experiments.launch --config=experiments/constraint/largest_tiny.py --config.rows.limits.0.most=1 \\
      --config.name=largest-unlimited

In about four of ten questions such as "Which is the largest: 3 9 1 5?" the right answer is 9, but `digits.toml` allows a 9 in
one answer of ten. So the best reward under the limit is about 0.7, and there the multiplier is 1: a right 9 earns a reward of 1
and has a cost of 1, so only at m = 1 is the policy indifferent. The second command is the same without the limit.

Two shared CPU cores: the parent 34 s, then 5 min each.

Result (2026-11-27): of 2,048 held-out questions, 35.2% of which have a 9, it answers 9.1% with a 9 and 72.5% rightly (74.8% is
the best possible); without the limit 35.3% and 98.5%. Over the last 50 steps the multiplier is 1.02 on average (0.74 to 1.36),
and 9.9% of the answers to training questions have a 9 (docs/constraint.png, by `traces.py` beside this file).
"""

from dataclasses import replace
from pathlib import Path

from align.kl import Fixed
from align.limits import read_limits
from align.rollout import Rollouts
from experiments.grpo.largest_tiny import get_config as unconstrained
from train.run import Run, Watch

LIMITS = read_limits(Path(__file__).with_name('digits.toml'))


def get_config() -> Run:
  run = unconstrained()
  assert isinstance(run.rows, Rollouts)
  return replace(run, name='largest-limited', rows=replace(run.rows, limits=LIMITS, kl=Fixed(0.05)),
                 watch=Watch(heldout=50, heldout_rows=1024, metrics=5))
