"""RLHF under limits (Dai et al. 2023) at 1.2 billion parameters on one GPU: PPO for what people like, with costs apart.

  python -m experiments.launch --config=experiments/constraint/llama_1b.py
  python -m experiments.launch --config=experiments/constraint/llama_1b.py --dry_run

The limits stand in `limits.toml`: how many answers may have personal data in them, and how long answers may be. Each has a
critic of its own and a multiplier. A learned cost model (`align/cost.py`) would be one more entry, `kind = 'model'`; there are
no flags of safety here to learn one from. All else is `experiments/ppo/llama_1b.py`. Meant for one H100; not run yet. Its
`_tiny` sibling is `largest_tiny.py`.
"""

from dataclasses import replace
from pathlib import Path

from align.critic import Critic
from align.limits import read_limits
from align.policy import PPO
from align.rollout import Rollouts
from experiments.ppo.llama_1b import get_config as free
from train.run import Run

LIMITS = read_limits(Path(__file__).with_name('limits.toml'))


def get_config() -> Run:
  run = free()
  assert isinstance(run.rows, Rollouts)
  names = tuple(limit.name for limit in LIMITS)
  return replace(run, name='llama-1b-limited', edits=(*run.edits, *map(Critic, names)),
                 rows=replace(run.rows, limits=LIMITS), objective=PPO(critics=('reward', *names)))
