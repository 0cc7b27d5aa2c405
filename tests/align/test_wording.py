"""A judge by words alone: its odds are those of naive Bayes, worked out by hand, and it knows what it was shown."""

import math

import pytest

from align.conversations import to_text
from align.wording import Wording, words
from model.chat import Message
from model.errors import DataError
from train.artifact import Store
from train.data.document import Document

SAID = (('fresh', 'good good film'), ('fresh', 'a film'), ('rotten', 'bad film'))


class Told:
  """A corpus of those answers."""

  name = 'told'

  def documents(self, folder, split):
    for index, (kind, text) in enumerate(SAID):
      yield Document(to_text([Message('user', 'bad?'), Message('assistant', text)]), 'told', str(index), {'kind': kind})


def judge(**fields):
  store = type('S', (Store,), {'find': lambda self, thing: None})(None)
  return Wording(**({'corpus': Told(), 'field': 'kind', 'good': 'fresh', 'bad': 'rotten'} | fields)).learnt(store)


def test_the_odds_are_those_of_naive_bayes():
  """Four words are known; fresh has five of them, rotten two. The question is no part of what is judged."""
  told = judge()
  assert told('') == pytest.approx(math.log(2))
  assert told('Good!') == pytest.approx(math.log(2) + math.log(3 / 9) - math.log(1 / 6))
  assert told('bad film, unheard of') == pytest.approx(math.log(2) + math.log(1 / 9) - math.log(2 / 6)
                                                       + math.log(3 / 9) - math.log(2 / 6))


def test_a_kind_that_is_not_there_is_named():
  with pytest.raises(DataError, match=r'reward\.no-kind.*ripe'):
    judge(bad='ripe')


def test_words_are_letters():
  assert words("It's GOOD, 7 of 10") == ["it's", 'good', 'of']
