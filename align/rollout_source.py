"""The source of rollouts: it samples with the state it is given, judges, and serves batches until it must sample again.

Its position is all that the next batch depends on beside the parameters: how many questions were asked, the rollouts at hand
and how many batches of them were served, the weight of the KL, the multipliers of limits. So a run that is killed in the
middle of an iteration goes on to the same bits.
"""

from dataclasses import replace
from itertools import islice

import jax
import numpy as np

from align.array_json import packed, unpacked
from align.constraint import Multipliers
from align.questions import Question
from align.rewards import Jury
from align.rollout import Rollouts
from align.rollout_rows import Lot, Scored, joined, rows_of
from align.sampler import Columns, Reader, Writer, keys, laid, short_enough
from model.adapter_tree import detach
from model.decoder import own
from model.errors import CheckpointError
from train.artifact import digest
from train.data.pipeline import Placement
from train.data.shuffle import key, permutation
from train.edits import join
from train.objectives import SEEN
from train.run import Parent
from train.trained import load
from train.types import Batch, Params, Position, Setting, State


class Crew:
  """What a rollout needs beside the policy: writer, reader, jury, and where there is one a teacher and a reference."""

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
    """An answer to each question, judged; `each` holds a sampling key for every one."""
    answers, logps = self.writer(params if self.teacher is None else self.teacher, questions, each)
    rewards = self.jury(answers)
    return Lot(answers, logps, rewards, self.jury.total(rewards))

  def score(self, params: Params, lot: Lot, length: int, critics: tuple[str, ...]) -> Scored:
    """The lot as rows, with log-probs under the policy and the reference, and the critics' values."""
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
    self.beta, self.multipliers = rollouts.kl.beta, Multipliers.begin(rollouts.limits)
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
            'beta': self.beta, 'multipliers': [list(memory) for memory in self.multipliers.memories],
            'buffer': packed(self.buffer) if self.served < self.batches else {}}

  def load(self, position: Position) -> None:
    """Raises: CheckpointError if the position is one of other rollouts, or damaged."""
    if position.get('rollouts') != digest(self.rollouts):
      raise CheckpointError('rollout.other', 'the position in a checkpoint', 'it is one of other rollouts',
                            'resume with the settings of the checkpoint, or start a new run')
    self.iteration, self.served, self.asked = (int(position[name]) for name in ('iteration', 'served', 'asked'))
    self.beta, self.multipliers = position['beta'], Multipliers(tuple(tuple(memory) for memory in position['multipliers']))
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
    """Fills the buffer with another iteration; then the weight of the KL and the multipliers follow what came out."""
    lot, drawn = self._written(params)
    scored = self.crew.score(params, lot, self.rollouts.length + 1, self.rollouts.critics)
    self.buffer = rows_of(self.rollouts, lot, scored, self.beta, self.multipliers.values(self.rollouts.limits))
    self.iteration, self.served = self.iteration + 1, 0
    self.names = {iteration: names for iteration, names in self.names.items() if iteration == self.iteration - 1}
    self.names[self.iteration] = [answer.question.id for answer in lot.answers]
    if f'{SEEN}kl' in self.buffer:
      self.beta = self.rollouts.kl.next(self.beta, float(self.buffer[f'{SEEN}kl'].mean()), self.rollouts.answers)
    costs = [float(drawn.rewards[limit.name].mean()) for limit in self.rollouts.limits]
    self.multipliers = self.multipliers.next(self.rollouts.limits, costs)

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
        (kept if not self.rollouts.refill or self._teaches(one) else dull).append(one)
      if len(kept) == wanted:
        break
    return joined([*kept, *dull[:wanted - len(kept)]]), joined([*kept, *dull])

  def _teaches(self, lot: Lot) -> bool:
    """Whether answers to one question differ in something that they are compared by, and are learnt from.

    Rewards are taken after answers that the limit ended were charged, as credit and `alike` take them: answers of one reward
    teach where some of them are charged.
    """
    rewards_B, mask_B1 = self.rollouts.truncated(lot.total_B, np.ones((len(lot.answers), 1), np.float32), lot.cut_B)
    costs = [lot.rewards[limit.name] for limit in self.rollouts.limits]
    return bool(mask_B1.any()) and any(np.ptp(worth_B) != 0 for worth_B in (rewards_B, *costs))

  def _next(self, count: int) -> list[tuple[int, Question]]:
    """The next `count` questions with their numbers; those whose prompt is too long are passed over."""
    every = short_enough(self.questions, self.crew.writer, self.rollouts.prompt_tokens, self.asked)
    found = list(islice(every, count))
    self.asked = found[-1][0] + 1
    return found
