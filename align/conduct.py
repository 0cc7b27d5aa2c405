"""Several models on the same held-out questions, measured side by side by rules that a program checks."""

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import rich
from rich.table import Table

from align import journal
from align.generated import seeds
from align.journal import Record
from align.judge import Judge
from align.questions import Asking
from align.rewards import TextReward
from model.errors import ConfigError
from train.artifact import Artifact, Store, write_json

CONDUCT, ANSWERS = 'conduct.json', 'answers.jsonl'


@dataclass(frozen=True)
class Measure:
  """One number for each answer, and its name in the table."""

  name: str
  of: TextReward


@dataclass(frozen=True)
class Asked:
  """Questions of one kind, and the measures of their answers."""

  name: str
  questions: Asking
  measures: tuple[Measure, ...]


@dataclass(frozen=True)
class Writing:
  """A model that answers, and its name in the table."""

  name: str
  judge: Judge


@dataclass(frozen=True, kw_only=True)
class Conduct(Artifact):
  """The means of all measures over the answers of each writer to the first `count` held-out questions of each kind.

  Its folder has `conduct.json`, {writer: {kind: {measure: mean}}}, and every answer in `answers.jsonl`.
  """

  writers: tuple[Writing, ...]
  asked: tuple[Asked, ...]
  count: int = 256
  seed: int = 0

  def __post_init__(self):
    for what, names in (('writers', [each.name for each in self.writers]), ('kinds', [each.name for each in self.asked])):
      if not names or len(set(names)) < len(names):
        raise ConfigError('config.names', f'{what} {", ".join(names) or "none"}', 'each is told by a name of its own',
                          'name them apart')
    if self.count < 1:
      raise ConfigError('config.out-of-range', f'count = {self.count}', 'it counts questions', 'use 1 or more')

  def make(self, folder: Path, store: Store) -> None:
    """Asks all questions, and writes means and answers."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    records: list[Record] = []
    for writing in self.writers:
      writer = writing.judge.open(store)
      found[writing.name] = {}
      for asked in self.asked:
        questions = list(map(asked.questions.open(store, 'heldout'), range(self.count)))
        said = writer.write([question.messages for question in questions], seeds(self.seed, 'conduct', 0, range(self.count)))
        scores = {measure.name: [measure.of.score(question, one.text) for question, one in zip(questions, said)]
                  for measure in asked.measures}
        found[writing.name][asked.name] = {name: fmean(each) for name, each in scores.items()}
        records += [{'writer': writing.name, 'kind': asked.name, 'id': question.id, 'question': question.messages[-1].content,
                     'answer': one.text} | {name: each[place] for name, each in scores.items()}
                    for place, (question, one) in enumerate(zip(questions, said))]
    journal.dump(folder / ANSWERS, records)
    write_json(folder / CONDUCT, found)
    rich.print(self._drawn(found))

  def _drawn(self, found: dict[str, dict[str, dict[str, float]]]) -> Table:
    table = Table('', *(writing.name for writing in self.writers), title=self.name, title_justify='left', box=None)
    for asked in self.asked:
      for measure in asked.measures:
        table.add_row(f'{asked.name}: {measure.name}',
                      *(f'{found[writing.name][asked.name][measure.name]:.3f}' for writing in self.writers))
    return table
