"""On-policy distillation: each batch is the student's own answers, sampled as it is now, for a teacher to correct.

    rows = OnPolicy(questions=FromTask(Sums()), vocabulary=chat.rows.vocabulary)
    Run(restore=chat, rows=rows, objective=Distil(teacher, Reverse()), ...)

GKD after Agarwal et al. 2023, with all of the data from the student; with Reverse() on-policy distillation as Lu 2025 (Thinking
Machines) has it. Rows are text whose mask is on the answer, so any objective of text reads them. Nothing is sampled ahead: a
batch is a function of the parameters and of how many questions were asked.
"""

from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

import numpy as np

from align.batch_means import Means, heldout
from align.questions import Asking, Question, Questions
from align.sampler import Columns, Writer, keys, laid, placed, short_enough
from model.chat import ChatML, Template
from model.errors import CheckpointError, ConfigError
from train.artifact import digest, how
from train.build import Built
from train.data.pipeline import Placement
from train.data.vocabulary import AnyVocabulary
from train.edits import join
from train.objectives import SEEN
from train.run import Run
from train.types import Batch, Evaluator, Form, Params, Position, Setting, Source, State

HELDOUT = 1                  # added to the seed, so that no held-out answer is drawn with a key of training


@dataclass(frozen=True, kw_only=True)
class OnPolicy:
  """The student's answers to `batch` questions a step: a `train.types.Feed`. Questions with a longer prompt are passed over."""

  questions: Asking
  vocabulary: AnyVocabulary
  template: Template = ChatML()
  prompt_tokens: int = 128
  answer_tokens: int = 128
  temperature: float = 1.0
  seed: int = 0
  lot: int = how(64)                   # answers written at a time

  form: ClassVar[Form] = 'text'

  def __post_init__(self):
    if min(self.prompt_tokens, self.answer_tokens, self.lot) < 1 or not self.temperature > 0:
      raise ConfigError('config.out-of-range', f'prompt_tokens = {self.prompt_tokens}, answer_tokens = {self.answer_tokens}, '
                        f'lot = {self.lot}, temperature = {self.temperature}', 'counts are 1 or more, a temperature above 0',
                        'mend the one that is not')

  @property
  def length(self) -> int:
    return self.prompt_tokens + self.answer_tokens - 1

  @property
  def reads(self) -> int:
    return self.length

  def check(self, run: Run) -> None:
    pass

  def holds(self, run: Run, built: Built) -> dict[str, Any]:
    return {}

  def open(self, setting: Setting) -> Source:
    return OnPolicySource(self, setting)

  def evaluator(self, setting: Setting, rows: int) -> Evaluator:
    """The means of the run's loss and metrics over sampled answers to `rows` held-out questions, the keys always the same."""
    return HeldoutAnswers(self, setting, rows)


class Answering:
  """Samples the student's answers to numbered questions, as rows."""

  def __init__(self, feed: OnPolicy, setting: Setting, questions: Questions, seed: int):
    self.feed, self.questions, self.seed = feed, questions, seed
    self.writer = Writer(setting.built.model, setting.tokenizer, feed.template, feed.answer_tokens, feed.temperature, feed.lot)

  def asked(self, first: int, count: int) -> tuple[tuple[int, ...], tuple[Question, ...]]:
    """(numbers, questions): `count` questions from number `first` on. Raises: DataError as `short_enough` does."""
    numbers, questions = zip(*islice(short_enough(self.questions, self.writer, self.feed.prompt_tokens, first), count))
    return numbers, questions

  def __call__(self, params: Params, numbers: tuple[int, ...], questions: tuple[Question, ...]) -> Columns:
    """The columns tokens, segments and mask of the answers, and metrics of each row."""
    answers, _ = self.writer(params, questions, keys(self.seed, numbers, 1))
    columns = laid(answers, self.feed.length + 1)
    cut_B = np.array([answer.reason == 'length' for answer in answers], np.float32)
    return columns | {f'{SEEN}answer_tokens': columns['mask'].sum(1), f'{SEEN}truncated': cut_B}


class OnPolicySource:
  """A `train.types.Source`."""

  def __init__(self, feed: OnPolicy, setting: Setting):
    self.feed, self.setting, self.asked = feed, setting, 0
    self.placement = Placement(setting.built.mesh, setting.run.batch)
    self.answering = Answering(feed, setting, feed.questions.open(setting.store, 'train'), feed.seed)
    self.names: list[str] = []             # of the questions of the last batch

  def __call__(self, state: State) -> Batch:
    """The next batch, written with these parameters."""
    numbers, questions = self.answering.asked(self.asked, self.setting.run.batch)
    self.asked, self.names = numbers[-1] + 1, [question.id for question in questions]
    columns = self.answering(join(state.params, self.setting.frozen), numbers, questions)
    return self.placement({name: column[self.placement.rows] for name, column in columns.items()})

  def save(self) -> Position:
    return {'feed': digest(self.feed), 'asked': self.asked}

  def load(self, position: Position) -> None:
    """Raises: CheckpointError if the position is one of other answers."""
    if position.get('feed') != digest(self.feed):
      raise CheckpointError('rollout.other', 'the position in a checkpoint', 'it is one of other answers',
                            'resume with the settings of the checkpoint, or start a new run')
    self.asked = int(position['asked'])

  def describe(self, record: int) -> str:
    step, row = divmod(record, self.setting.run.batch)
    return f'batch {step}, answer {row}' + (f' to question {self.names[row]}' if self.names else '')

  def close(self) -> None:
    pass


class HeldoutAnswers:
  """A `train.types.Evaluator`."""

  def __init__(self, feed: OnPolicy, setting: Setting, rows: int):
    self.placement = Placement(setting.built.mesh, setting.run.batch)
    self.means = Means(setting.run.objective(setting.built.model), setting.frozen)
    self.answering = Answering(feed, setting, feed.questions.open(setting.store, 'heldout'), feed.seed + HELDOUT)
    self.numbers, self.questions = self.answering.asked(0, rows)

  def __call__(self, params: Params) -> dict[str, float]:
    """What `OnPolicy.evaluator` promises, of the whole parameters (frozen ones joined in)."""
    columns = self.answering(params, self.numbers, self.questions)
    seen = {name: columns.pop(name).mean() for name in list(columns) if name.startswith(SEEN)}
    found = self.means(params, placed(columns, self.placement))
    return heldout(found | {name.removeprefix(SEEN): float(value) for name, value in seen.items()})
