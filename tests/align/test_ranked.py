"""Pairs that a verifier ranks: the better answer is chosen, ties are no pairs, and a corpus reads what came out."""

from dataclasses import dataclass

import pytest

from align.generated import FromGenerated
from align.judge import Judge, Said
from align.preferences import pair_in
from align.questions import FromTask
from align.ranked import Ranked, pair, record
from align.rewards import Verified
from align.tasks import Largest
from model.errors import ConfigError, DataError
from train.artifact import Store, read_json
from train.data.files import read_lines
from train.data.readers import parse

TASK = Largest(3)


@dataclass(frozen=True)
class Clerk(Judge):
  """Says the first number of the question, or the last, as its seed is even or odd."""

  always: bool = False

  def open(self, store):
    return self

  def write(self, talks, seeds):
    numbers = [talk[-1].content.rstrip('?').split(': ')[1].split() for talk in talks]
    return [Said(each[-1 if seed % 2 and not self.always else 0], False) for each, seed in zip(numbers, seeds)]


def test_the_better_answer_is_chosen_and_ties_are_none(tmp_path):
  store = Store(tmp_path)
  ranked = Ranked(name='ranked', questions=FromTask(TASK), writer=Clerk(), grader=Verified(TASK), group=6, count=40, lot=7)
  folder = store.make(ranked)
  outcomes = read_json(folder / 'table.json')['outcomes']
  documents = list(FromGenerated(ranked).reader(store).read())
  assert 0 < outcomes['ranked'] == len(documents) < 40 == outcomes['questions']
  assert sum(1 for _ in read_lines(folder / 'graded.jsonl')) == 40
  for document in documents:
    made = pair_in(parse(document.text, ''), '')
    shown = made.prompt[-1].content.rstrip('?').split(': ')[1].split()
    assert made.margin == 1 and made.chosen[0].content == max(shown, key=int) != made.rejected[0].content


def test_the_first_of_the_best_before_the_first_of_the_worst():
  made = pair(record(0, [], ['a', 'b', ' ', 'c', 'd'], [0.5, 1.0, 0.0, 1.0, 0.5]))
  assert (made['chosen'], made['rejected'], made['margin']) == ('b', 'a', 0.5)
  assert record(0, [], ['a', ' '], [1.0, 0.0])['outcome'].startswith('left out')


def test_what_teaches_nothing_is_refused(tmp_path):
  ranked = Ranked(name='ranked', questions=FromTask(TASK), writer=Clerk(always=True), grader=Verified(TASK), count=5)
  with pytest.raises(DataError, match=r'pair\.none'):
    Store(tmp_path).make(ranked)
  with pytest.raises(ConfigError):
    Ranked(name='ranked', questions=FromTask(TASK), writer=Clerk(), grader=Verified(TASK), group=1)
