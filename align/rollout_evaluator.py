"""Rewards, length and KL of a policy's answers to held-out questions."""

from dataclasses import replace
from itertools import islice

from align.rollout import Rollouts
from align.rollout_source import Crew
from align.sampler import keys, short_enough
from train.data.pipeline import Placement
from train.types import Params, Setting

HELDOUT = 1             # added to the seed, so that no answer is drawn with a key of training


class HeldoutAnswers:
  """A `train.types.Evaluator`: one sampled answer to each of the first held-out questions, with the same keys every time."""

  def __init__(self, rollouts: Rollouts, setting: Setting, rows: int):
    self.rollouts = replace(rollouts, by=None) if rollouts.by else rollouts
    self.crew = Crew(self.rollouts, setting, Placement(setting.built.mesh, setting.run.batch))
    questions = rollouts.questions.open(setting.store, 'heldout')
    fits = short_enough(questions, self.crew.writer, rollouts.prompt_tokens, 0)
    self.numbers, self.questions = zip(*islice(fits, rows))

  def __call__(self, params: Params) -> dict[str, float]:
    """The mean reward, each part of it and each cost, the length in tokens, and the KL from the reference in nats an answer."""
    lot = self.crew.write(params, list(self.questions), keys(self.rollouts.seed + HELDOUT, self.numbers, 1))
    scored = self.crew.score(params, lot, self.rollouts.length + 1, ())
    parts = {name: float(values.mean()) for name, values in lot.rewards.items()} if len(lot.rewards) > 1 else {}
    found = {'reward': float(lot.total_B.mean())} | parts | {'answer_tokens': float(scored.columns['mask'].sum(1).mean())}
    if scored.ref_BT is not None:
      found['kl'] = float(scored.kl_BT.sum(1).mean())
    return {f'heldout_{name}': value for name, value in found.items()}
