"""Constrained RLHF (Dai et al. 2023) of the 1B Llama on one GPU: PPO on a reward model, with limits on two costs.

  python -m experiments.launch --config=experiments/constraint/llama_1b.py
  python -m experiments.launch --config=experiments/constraint/llama_1b.py --dry_run

`limits.toml` limits the share of answers with personal data and the length of answers. Each limit has a critic and a Lagrange
multiplier of its own. A learned cost model (`align/cost.py`) would be one more entry, `kind = 'model'`; there is no data on
safety here to train one on. All else is as in `experiments/ppo/llama_1b.py`. For one H100; not run yet. `largest_tiny.py` is a
recipe of this kind for two CPU cores.
"""

from dataclasses import replace
from pathlib import Path

from align.critic import Critic
from align.limits import read_limits
from align.policy import PPO
from align.rollout import Rollouts
from experiments.ppo.llama_1b import get_config as unconstrained
from train.run import Run

LIMITS = read_limits(Path(__file__).with_name('limits.toml'))


def get_config() -> Run:
  run = unconstrained()
  assert isinstance(run.rows, Rollouts)
  names = tuple(limit.name for limit in LIMITS)
  return replace(run, name='llama-1b-limited', edits=(*run.edits, *map(Critic, names)),
                 rows=replace(run.rows, limits=LIMITS), objective=PPO(critics=('reward', *names)))
