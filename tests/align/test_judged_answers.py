"""A judge's mark: which answer is the better, wherever they stand."""

import numpy as np
import pytest

from align.constitution import Ballot
from align.judged_answers import JudgedAnswers
from model.chat import Message
from tests.align.judges import PRINCIPLES, Scripted
from train.artifact import Store

TALKS = [(Message('user', '?'),)] * 4


@pytest.mark.parametrize('bias', [0.0, 3.0])
def test_a_mark_is_the_chance_of_being_better_and_no_place_is_liked(tmp_path, bias):
  marker = JudgedAnswers(Scripted(bias=bias), PRINCIPLES[0], Ballot('{talk}|{first}|{second}|{prefer}'))
  marks = marker.open(Store(tmp_path))(TALKS, ['3', '2', '1', ''], ['2', '2', '2', '1'])
  strength = 1 + len(PRINCIPLES[0].prefer) % 3
  assert marks == pytest.approx([1 / (1 + np.exp(-strength)), 0.5, 1 / (1 + np.exp(strength)), 0.0])


def test_what_is_too_long_has_no_mark(tmp_path):
  marker = JudgedAnswers(Scripted(patience=10), PRINCIPLES[0], Ballot('{talk}|{first}|{second}|{prefer}'))
  assert np.isnan(marker.open(Store(tmp_path))(TALKS[:2], ['30', '2'], ['2', '2'])).tolist() == [True, False]
