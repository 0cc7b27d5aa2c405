"""Bad pairs, rewards and rollouts."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tests.bad_input.table import Table

case = Table()


def pairs_of(folder: Path, **fields) -> None:
  """A file of one pair, read: as it should be but for the fields."""
  from align.preferences import PairLines
  pair = {'prompt': 'Hi', 'chosen': 'Hello!', 'rejected': 'What?'} | fields
  (folder / 'pairs.jsonl').write_text(json.dumps({name: value for name, value in pair.items() if value is not None}) + '\n')
  list(PairLines(f'{folder}/pairs.jsonl').read())


@case(56, 'pair.alike', 'pairs.jsonl:1', 'both sides say the same')
def a_pair_whose_sides_are_alike(folder):
  pairs_of(folder, rejected='Hello!')


@case(56, 'chat.empty-answer', "pairs.jsonl:1: field 'rejected'", 'says nothing')
def a_pair_with_an_answer_of_nothing(folder):
  pairs_of(folder, rejected='  ')


@case(56, 'pair.unknown-field', 'pairs.jsonl:1: choosen', 'a pair has prompt, messages, chosen')
def a_pair_with_a_field_that_is_spelt_otherwise(folder):
  pairs_of(folder, choosen='Hello!', chosen=None)


@case(56, 'pair.bad-number', "pairs.jsonl:1: field 'label' is 7", 'from 0 to 1')
def a_pair_whose_label_is_a_margin(folder):
  pairs_of(folder, label=7)


def judged_by(score: Callable[[str], float], answers: tuple[str, ...] = ('yes', 'no')) -> None:
  """What a reward of one's own says to some answers."""
  from types import SimpleNamespace

  import numpy as np

  from align.questions import Question
  from align.rewards import Answer, Jury, Part
  from model.chat import Message
  question = Question('train 3', (Message('user', 'Is it?'),))
  reward = SimpleNamespace(open=lambda setting: lambda given: [score(answer.text) for answer in given])
  Jury((Part('kind', reward),), None)([Answer(question, np.zeros(1), np.zeros(1), text, 'eos') for text in answers])


@case(57, 'reward.not-finite', "reward 'kind' = nan", "the answer 'no' to question train 3 ('Is it?')", 'finite number')
def a_reward_that_is_no_number(folder):
  judged_by(lambda answer: float('nan') if answer == 'no' else 1.0)


@case(57, 'reward.raised', "reward 'kind'", 'KeyError', 'an answer may be anything')
def a_reward_that_raises(folder):
  judged_by({'yes': 1.0}.__getitem__)


def largest(**fields):
  """The tiny experiment of GRPO with other rollouts."""
  from experiments.grpo.largest_tiny import get_config
  run = get_config()
  return replace(run, rows=replace(run.rows, **fields))


@case(58, 'config.group', 'group = 1', 'it compares the answers to a question')
def a_group_of_one(folder):
  largest(group=1)


@case(58, 'config.no-reference', 'restore = None', 'the reference is the parent')
def a_distance_from_nothing(folder):
  from align.kl import Fixed
  run = largest()
  replace(run, restore=None, rows=replace(run.rows, kl=Fixed(0.1)))


@case(59, 'rollout.long-prompts', 'prompt_tokens = 4', 'raise prompt_tokens')
def questions_that_never_fit(folder):
  from types import SimpleNamespace

  from align.rollout_source import RolloutSource
  source = object.__new__(RolloutSource)
  source.rollouts, source.asked, source.questions = SimpleNamespace(prompt_tokens=4), 0, lambda number: number
  source.crew = SimpleNamespace(writer=SimpleNamespace(prompt=lambda question: [0] * 5))
  list(source._next(1))
