"""A small world for tests of rollouts: a task, a model that hardly knows it, and what it takes to open a run."""

from dataclasses import dataclass, replace

import jax

from align.kl import Adaptive
from align.policy import GRPO
from align.questions import FromTask, Question
from align.rewards import Part, TextReward, Verified
from align.rollout import Rollouts
from align.tasks import Largest
from model.chat import Plain
from train.artifact import Store
from train.build import start
from train.optimizer import AdamW, Optimizer
from train.run import Run, Saving, Watch
from train.trained import foundation
from train.types import Setting

TASK = Largest(3)


@dataclass(frozen=True)
class Letters(TextReward):
  """How many letters e an answer has: something that an untrained model's answers differ in."""

  def score(self, question: Question, answer: str) -> float:
    return float(sum(answer.count(letter) for letter in 'eta '))


def rollouts(vocabulary, **fields) -> Rollouts:
  """4 questions, 4 answers each of at most 6 tokens, learnt from twice."""
  return Rollouts(**({'questions': FromTask(TASK), 'vocabulary': vocabulary, 'template': Plain(), 'asked': 4, 'group': 4,
                      'rewards': (Part('letters', Letters()), Part('right', Verified(TASK), 0.5)), 'prompt_tokens': 48,
                      'answer_tokens': 6, 'epochs': 2, 'kl': Adaptive(0.1, target=1.0, horizon=16)} | fields))


def learner(before: Run, rows: Rollouts, **fields) -> Run:
  """A run from there on those rollouts: two batches an inner epoch."""
  return Run(**({'name': 'learner', 'model': before.model, 'restore': before, 'rows': rows, 'objective': GRPO(), 'batch': 8,
                 'steps': 6, 'optimizer': Optimizer(AdamW(lr=1e-2)), 'saving': Saving(every=3),
                 'watch': Watch(heldout=0, metrics=1)} | fields))


def opened(run: Run, store: Store, devices=None):
  """(setting, source, state at step 0) of a run on the first device, or on those given. Its mesh must be set."""
  devices = devices or jax.devices()[:1]
  built = run.build(devices)

  with jax.set_mesh(built.mesh):
    params, frozen = foundation(run, built, store, devices)
    setting = Setting(run, store, built, run.rows.vocabulary.load(store), frozen, {})
    return setting, run.rows.open(setting), start(built, run.seed, params)


def renamed(run: Run, **fields) -> Run:
  """The run with other rollouts."""
  return replace(run, rows=replace(run.rows, **fields))


def taken(setting, state, batch):
  """The metrics of a step."""
  with jax.set_mesh(setting.built.mesh):
    metrics = jax.jit(setting.built.step)(state, setting.frozen, batch)[1]
  return {name: float(mean.value()) for name, mean in metrics.items()}
