"""The stages of a lineage side by side (SFT, DPO, PPO, ...): win rates, rewards and KL on the same held-out questions.

    chat = Stage('SFT', sft)
    Stages(name='stages', stages=(Stage('pre-trained', lm), chat, Stage('DPO', dpo), Stage('PPO', ppo)), against='SFT',
           questions=FromTalks(talks), judges=(Part('liked', Modelled(scale)),))

Its folder has `stages.json` and `stages.html`. The parts of `stages.json`, every number as it was measured:

    name, against, questions, notes      how many held-out questions, and in `notes` how each column came about
    stages    [{name, run, digest, wins, wins_low, wins_high, kl, answer_tokens, ended, judges: {name: {mean, error}}}]
    samples   [{question, answers: {stage: text}}]
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import rich
from rich.table import Table

from align.questions import Asking
from align.rewards import Answer, Jury, Part
from align.sampler import Reader, Writer, keys, laid
from align.stages_page import render
from align.template_of import template_of
from model.chat import Plain, Template
from model.errors import ConfigError, DataError
from train.artifact import Artifact, Store, digest, how, write_json
from train.data.pipeline import Placement
from train.eval.resampling import INSIDE, RESAMPLES, exact
from train.run import Run
from train.trained import Trained, foundation, load, opened
from train.types import Setting

STAGES = 'stages.json'


@dataclass(frozen=True)
class Stage:
  """A run, and its name in the comparison."""

  name: str
  run: Run


@dataclass(frozen=True, kw_only=True)
class Stages(Artifact):
  """One sampled answer of each stage to each of the first `answers` held-out questions, with the same keys for all stages.

  A stage wins where its weighted reward is larger than that of the stage `against`; ties are half a win. `kl` is the mean
  over its answers of log p - log p_against, summed over tokens.
  """

  stages: tuple[Stage, ...]
  against: str
  questions: Asking
  judges: tuple[Part, ...]
  template: Template | None = None     # None: that of the stage `against`
  answers: int = 256
  prompt_tokens: int = 128             # longer ones are left out
  answer_tokens: int = 64
  temperature: float = 1.0
  shown: int = 6
  seed: int = 0
  batch: int = how(32)

  def __post_init__(self):
    names = [stage.name for stage in self.stages]
    if len(set(names)) < len(names) or self.against not in names:
      raise ConfigError('config.stages', f'stages {", ".join(names)}, against = {self.against!r}',
                        'stages have names of their own, and one of them is what the others are compared with', 'name them so')
    if not self.judges or min(self.answers, self.answer_tokens, self.batch) < 1:
      raise ConfigError('config.out-of-range', f'judges = {self.judges}, answers = {self.answers}, answer_tokens = '
                        f'{self.answer_tokens}', 'somebody judges something', 'give a judge, and 1 or more of each')
    vocabularies = {digest(stage.run.vocabulary) for stage in self.stages}
    if len(vocabularies) > 1:
      raise ConfigError('config.other-vocabulary', f'stages {", ".join(names)}', 'they know different ids, so nothing says how '
                        'likely one finds the answers of another', 'compare stages of one vocabulary')

  @property
  def base(self) -> Run:
    """The run that the others are compared with."""
    return next(stage.run for stage in self.stages if stage.name == self.against)

  def make(self, folder: Path, store: Store) -> None:
    """Answers, judges, and writes the page. Raises: DataError where no question is held out."""
    found = self.measured(store)
    write_json(folder / STAGES, found)
    (folder / 'stages.html').write_text(render(found))
    rich.print(table(found))

  def measured(self, store: Store) -> dict[str, Any]:
    """What `stages.json` holds."""
    built = opened(self.base, jax.local_devices())
    with jax.set_mesh(built.mesh):
      base = load(self.base, store)
      frozen = foundation(self.base, built, store, jax.local_devices())[1] if built.frozen else {}
      jury = Jury(self.judges, Setting(self.base, store, built, base.tokenizer, frozen, {}))
      asked = Asked(self, base, store)
      said = {stage.name: asked.said(load(stage.run, store), jury) for stage in self.stages}
    return {
      'name': self.name, 'against': self.against, 'questions': len(asked.questions), 'notes': self.notes(),
      'stages': [{'name': stage.name, 'run': stage.run.name, 'digest': digest(stage.run)[:10]} |
                 compared(said[stage.name], said[self.against]) for stage in self.stages],
      'samples': [{'question': question.messages[-1].content, 'person': question.answer,
                   'answers': {name: each.answers[place].text for name, each in said.items()}}
                  for place, question in enumerate(asked.questions[:self.shown])]}

  def notes(self) -> dict[str, str]:
    """What each column means, in a sentence each."""
    return {
      'wins': f'share of questions on which the weighted reward is larger than that of {self.against}, ties half; 95% interval '
              f'from {RESAMPLES:,} resamples of the questions, exact where all were won or all lost',
      'kl': f'nats an answer: log p of the stage less log p of {self.against}, summed over the tokens that the stage wrote',
      'judges': 'mean reward and its standard error', 'ended': 'answers that ended before the limit',
      'answers': f'one for each question, sampled at temperature {self.temperature:g}, at most {self.answer_tokens} tokens'}


class Said(NamedTuple):
  """A stage's answers, judged."""

  answers: list[Answer]
  rewards: dict[str, np.ndarray]       # f32[questions], by judge
  total: np.ndarray
  kl: np.ndarray                       # f32[questions], nats


class Asked:
  """The questions, and what is needed to have stages answer them."""

  def __init__(self, stages: Stages, base: Trained, store: Store):
    self.stages, self.base = stages, base
    self.template = stages.template or template_of(stages.base) or Plain()
    self.placement = Placement(jax.sharding.get_mesh(), stages.batch)
    question_of = stages.questions.open(store, 'heldout')
    writer = self.writer(base)
    questions = {question.id: question for question in map(question_of, range(stages.answers))}.values()
    self.questions = [question for question in questions if len(writer.prompt(question)) <= stages.prompt_tokens]
    if not self.questions:
      raise DataError('question.none', stages.name, 'no held-out question has a prompt of '
                      f'{stages.prompt_tokens} tokens or fewer', 'raise prompt_tokens')

  def writer(self, trained: Trained) -> Writer:
    return Writer(trained.model, trained.tokenizer, self.template, self.stages.answer_tokens, self.stages.temperature,
                  self.stages.batch)

  def said(self, stage: Trained, jury: Jury) -> Said:
    """A stage's answers, their rewards, and their KL from the base."""
    chance = keys(self.stages.seed, range(len(self.questions)), 1)
    answers, _ = self.writer(stage)(stage.params, self.questions, chance)
    rewards = jury(answers)
    columns = laid(answers, self.stages.prompt_tokens + self.stages.answer_tokens)
    mine, theirs = (Reader(each.model, self.stages.temperature, self.placement)(each.params, columns).logp
                    for each in (stage, self.base))
    return Said(answers, rewards, jury.total(rewards), (mine - theirs).sum(1))


def compared(said: Said, base: Said) -> dict[str, Any]:
  """The numbers of a stage, as `stages.json` has them."""
  wins = 0.5 * (1 + np.sign(said.total - base.total))
  low, high = interval(wins)
  return {'wins': float(wins.mean()), 'wins_low': low, 'wins_high': high, 'kl': float(said.kl.mean()),
          'answer_tokens': float(np.mean([len(answer.ids) for answer in said.answers])),
          'ended': float(np.mean([answer.reason != 'length' for answer in said.answers])),
          'judges': {name: {'mean': float(values.mean()), 'error': float(values.std() / max(len(values), 1) ** 0.5)}
                     for name, values in said.rewards.items()}}


def interval(values: np.ndarray) -> tuple[float, float]:
  """A 95% interval of the mean: from bootstrap resamples, or where all values are 0 or all are 1 the exact binomial one."""
  places = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
  low, high = exact(values) or np.quantile(values[places].mean(1), INSIDE)
  return float(low), float(high)


def table(found: dict[str, Any]) -> Table:
  """The stages as a table for the terminal."""
  drawn = Table(title=f'{found["name"]}: {found["questions"]} held-out questions', title_justify='left')
  judges: Sequence[str] = list(found['stages'][0]['judges'])
  for head in ('stage', *judges, f'wins against {found["against"]}', 'KL', 'tokens', 'ended'):
    drawn.add_column(head, justify='left' if head == 'stage' else 'right')
  for row in found['stages']:
    drawn.add_row(row['name'], *(f'{row["judges"][name]["mean"]:.3f} ± {row["judges"][name]["error"]:.3f}' for name in judges),
                  f'{row["wins"]:.1%} ({row["wins_low"]:.0%} to {row["wins_high"]:.0%})', f'{row["kl"]:.1f}',
                  f'{row["answer_tokens"]:.0f}', f'{row["ended"]:.0%}')
  return drawn
