"""The source of rollouts: it samples with the state it is given, judges, and deals out batches until it must sample again.

Its position is all that the next batch depends on beside the parameters: how far the questions are, the rollouts that are
being learnt and which part of them, the price of distance, the multipliers of limits. So a run that is killed in the middle
of an iteration goes on to the same bits.
"""

from collections.abc import Iterator
from dataclasses import replace

import jax
import numpy as np

from align.buffer import packed, unpacked
from align.constraint import Held
from align.questions import Question
from align.rewards import Jury
from align.rollout import Rollouts
from align.rollout_rows import Lot, Scored, joined, rows_of
from align.sampler import Columns, Reader, Writer, keys, laid
from model.adapter_tree import detach
from model.decoder import own
from model.errors import CheckpointError, DataError
from train.artifact import digest
from train.data.pipeline import Placement
from train.data.shuffle import key, permutation
from train.edits import join
from train.objectives import SEEN
from train.run import Parent
from train.trained import load
from train.types import Batch, Params, Position, Setting, State

LONGEST_SEARCH = 10_000      # questions in a row that may be too long


class Crew:
  """Those who take part in a rollout beside the policy: who writes, who judges, and the reference."""

  def __init__(self, rollouts: Rollouts, setting: Setting, placement: Placement):
    built, run = setting.built, setting.run

    def other(parent: Parent) -> Params:
      return setting.once(digest(parent), lambda: load(replace(parent, mesh=run.mesh), setting.store, setting.devices).params)

    self.writer = Writer(built.model, setting.tokenizer, rollouts.template, rollouts.answer_tokens, rollouts.temperature,
                         rollouts.lot)
    self.reader = Reader(built.model, rollouts.temperature, placement)
    self.jury = Jury((*rollouts.rewards, *(limit.part() for limit in rollouts.limits)), setting)
    self.teacher = None if rollouts.by is None else other(rollouts.by)
    self.kept = other(run.restore) if run.restore and rollouts.keeps_reference(run) else None
    self.referred = rollouts.referred(run)

  def write(self, params: Params, questions: list[Question], each: jax.Array) -> Lot:
    """An answer to each, judged; `each` is a key for every one of them."""
    answers, logps = self.writer(params if self.teacher is None else self.teacher, questions, each)
    rewards = self.jury(answers)
    return Lot(answers, logps, rewards, self.jury.total(rewards))

  def score(self, params: Params, lot: Lot, length: int, critics: tuple[str, ...]) -> Scored:
    """The rows of a lot, and what policy, critics and reference make of them."""
    columns = laid(lot.answers, length)
    logp_BT, values = self.reader(params, columns, critics)
    if not self.referred:
      return Scored(columns, logp_BT, values, None)
    reference = detach(own(params)) if self.kept is None else self.kept
    return Scored(columns, logp_BT, values, self.reader(reference, columns).logp)


class RolloutSource:
  """A `train.types.Source`."""

  def __init__(self, rollouts: Rollouts, setting: Setting):
    self.rollouts, self.setting = rollouts, setting
    self.placement = Placement(setting.built.mesh, setting.run.batch)
    self.crew = Crew(rollouts, setting, self.placement)
    self.questions = rollouts.questions.open(setting.store, 'train')
    self.batches = rollouts.epochs * rollouts.answers // setting.run.batch          # of an iteration
    self.iteration, self.served, self.asked = -1, self.batches, 0
    self.beta, self.held = rollouts.kl.beta, Held.begin(rollouts.limits)
    self.buffer: Columns = {}
    self.names: dict[int, list[str]] = {}            # of the questions of the last two iterations

  def __call__(self, state: State) -> Batch:
    """The next batch: the columns of `align.rollout_rows`."""
    if self.served == self.batches:
      self._sample(join(state.params, self.setting.frozen))
    rows = self._rows(self.iteration, self.served)[self.placement.rows]
    self.served += 1
    return self.placement({name: column[rows] for name, column in self.buffer.items()})

  def save(self) -> Position:
    return {'rollouts': digest(self.rollouts), 'iteration': self.iteration, 'served': self.served, 'asked': self.asked,
            'beta': self.beta, 'multipliers': [list(memory) for memory in self.held.memories],
            'buffer': packed(self.buffer) if self.served < self.batches else {}}

  def load(self, position: Position) -> None:
    """Raises: CheckpointError if the position is one of other rollouts, or damaged."""
    if position.get('rollouts') != digest(self.rollouts):
      raise CheckpointError('rollout.other', 'the position in a checkpoint', 'it is one of other rollouts',
                            'resume with the settings of the checkpoint, or start a new run')
    self.iteration, self.served, self.asked = (int(position[name]) for name in ('iteration', 'served', 'asked'))
    self.beta, self.held = position['beta'], Held(tuple(tuple(memory) for memory in position['multipliers']))
    self.buffer = unpacked(position['buffer'])

  def describe(self, record: int) -> str:
    """The answer of a row; and its question, while that is remembered."""
    step, place = divmod(record, self.setting.run.batch)
    iteration, served = divmod(step, self.batches)
    answer = int(self._rows(iteration, served)[place])
    names = self.names.get(iteration)
    return f'iteration {iteration}, answer {answer}' + (f' to question {names[answer]}' if names else '')

  def close(self) -> None:
    """Nothing is held open."""

  def _rows(self, iteration: int, served: int) -> np.ndarray:
    """The answers of a batch, in the order of its inner epoch."""
    epoch, part = divmod(served, self.batches // self.rollouts.epochs)
    order = permutation(key(self.rollouts.seed, 'rollouts', iteration, epoch), self.rollouts.answers)
    return order[part * self.setting.run.batch:(part + 1) * self.setting.run.batch]

  def _sample(self, params: Params) -> None:
    """Another iteration, from the policy as it is; then the price of distance and the multipliers follow what came out."""
    lot, drawn = self._written(params)
    scored = self.crew.score(params, lot, self.rollouts.length + 1, self.rollouts.critics)
    self.buffer = rows_of(self.rollouts, lot, scored, self.beta, self.held.values(self.rollouts.limits))
    self.iteration, self.served = self.iteration + 1, 0
    self.names = {iteration: names for iteration, names in self.names.items() if iteration == self.iteration - 1}
    self.names[self.iteration] = [answer.question.id for answer in lot.answers]
    if f'{SEEN}kl' in self.buffer:
      self.beta = self.rollouts.kl.next(self.beta, float(self.buffer[f'{SEEN}kl'].mean()), self.rollouts.answers)
    costs = [float(drawn.rewards[limit.name].mean()) for limit in self.rollouts.limits]
    self.held = self.held.next(self.rollouts.limits, costs)

  def _written(self, params: Params) -> tuple[Lot, Lot]:
    """`asked` questions answered; those that teach nothing give their places to others, `refill` times. And all that were."""
    wanted, group = self.rollouts.asked, self.rollouts.group
    kept: list[Lot] = []
    dull: list[Lot] = []
    for _ in range(self.rollouts.refill + 1):
      numbers, questions = zip(*self._next(wanted - len(kept)))
      each = [question for question in questions for _ in range(group)]
      lot = self.crew.write(params, each, keys(self.rollouts.seed, numbers, group))
      groups = [lot.of(range(begin, begin + group)) for begin in range(0, len(each), group)]
      for one in groups:
        alike = self.rollouts.refill and not any(np.ptp(worth_B) for worth_B in self._worths(one))
        (dull if alike else kept).append(one)
      if len(kept) == wanted:
        break
    return joined([*kept, *dull[:wanted - len(kept)]]), joined([*kept, *dull])

  def _worths(self, lot: Lot) -> list[np.ndarray]:
    """All that answers are compared by."""
    return [lot.total_B, *(lot.rewards[limit.name] for limit in self.rollouts.limits)]

  def _next(self, count: int) -> Iterator[tuple[int, Question]]:
    """The next questions with their numbers; those whose prompt is too long are passed over."""
    passed = 0
    while count:
      number, question = self.asked, self.questions(self.asked)
      self.asked += 1
      if len(self.crew.writer.prompt(question)) <= self.rollouts.prompt_tokens:
        count, passed = count - 1, 0
        yield number, question
      elif (passed := passed + 1) == LONGEST_SEARCH:
        raise DataError('rollout.long-prompts', f'prompt_tokens = {self.rollouts.prompt_tokens}',
                        f'none of {passed:,} questions in a row has a prompt as short as that', 'raise prompt_tokens')
