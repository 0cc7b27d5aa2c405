"""How reliable a judge is: how often its labels agree with rules that a program checks, and how much it likes what comes first.

Where a principle can be checked for some answers, this shows what the labels of all answers are worth.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rich
from rich.table import Table

from align import journal
from align.ai_preferences import AiPreferences
from align.conduct import Measure
from align.constitution import label
from align.conversations import messages_in
from align.journal import Record
from align.questions import Question
from model.errors import ConfigError
from train.artifact import Artifact, Store, write_json

REPORT = 'judge.json'
COLUMNS: dict[str, Callable[[Any], str]] = {'pairs': '{:,}'.format, 'agrees': '{:.3f}'.format, 'one order': '{:.3f}'.format,
                                            'bias': '{:+.2f}'.format, 'even': '{:.3f}'.format}


@dataclass(frozen=True, kw_only=True)
class JudgeReport(Artifact):
  """Compares the judge of `preferences` with rules: costs of answers, each of the name of the principle that it checks.

  The folder's `judge.json` has for each rule: `pairs`, how many pairs the rule tells apart; `agrees`, the share of them in
  which the judge prefers the answer of lower cost; `one order`, that share if each order is counted alone; `bias`, the log-odds
  that an answer gains by being shown first, nats; `even`, the mean distance of labels from 0.5 where both cost the same.
  """

  preferences: AiPreferences
  rules: tuple[Measure, ...]

  def __post_init__(self):
    known = [principle.id for principle in self.preferences.principles]
    if unknown := [rule.name for rule in self.rules if rule.name not in known]:
      raise ConfigError('config.rules', f'rules {", ".join(unknown)}', f'the principles are {", ".join(known)}',
                        'give rules the names of principles')

  def make(self, folder: Path, store: Store) -> None:
    """Writes `judge.json` and prints it as a table."""
    records = [each for each in journal.read(store.find(self.preferences) / AiPreferences.records)
               if each['outcome'] == AiPreferences.kept]
    found = {rule.name: compared(rule, records) for rule in self.rules}
    write_json(folder / REPORT, found)
    table = Table('principle', *COLUMNS, title=self.name, title_justify='left', box=None)
    for name, row in found.items():
      table.add_row(name, *(show(row[column]) for column, show in COLUMNS.items()))
    rich.print(table)


def compared(rule: Measure, records: list[Record]) -> dict[str, float]:
  """The row of one principle; shares of nothing are 0."""
  agrees, alone, bias, even = [], [], [], []
  for record in records:
    logps_O2 = np.array([each['logp'] for each in record['judged'] if each['principle'] == rule.name])
    question = Question(record['id'], messages_in(record['question'], record['id']))
    costs = [rule.of.score(question, answer) for answer in record['answers']]
    first, second = logps_O2[:, 0] - logps_O2[:, 1]          # log-odds of what is shown first, in both orders
    bias.append(0.5 * (first + second))
    if costs[0] == costs[1]:
      even.append(abs(label(logps_O2[None]) - 0.5))
    else:
      better = 1.0 if costs[0] < costs[1] else -1.0
      agrees.append(better * (first - second) > 0)
      alone += [better * first > 0, better * second < 0]
  return {'pairs': len(agrees), 'agrees': mean(agrees), 'one order': mean(alone), 'bias': mean(bias), 'even': mean(even)}


def mean(values: list[Any]) -> float:
  return float(np.mean(values)) if values else 0.0
