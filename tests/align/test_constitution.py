"""A constitution's file, what is asked of critics and judges, and the labels that are made of what a judge says."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from align.constitution import Ballot, criticising, label, revising
from align.principles import Principle, read_principles
from model.chat import Message
from model.errors import ConfigError, DataError
from train.artifact import digest

ENTRY = "[[principle]]\nid = 'calm'\ncritique = 'Loud?'\nrevise = 'Softer.'\nprefer = 'Which is softer?'\n"
CALM = Principle('calm', 'Loud?', 'Softer.', 'Which is softer?')
ASKED = (Message('user', 'Hi {first}'),)


def principles(folder, text):
  (folder / 'p.toml').write_text(text)
  return read_principles(folder / 'p.toml')


def test_principles_are_read_in_their_order(tmp_path):
  assert principles(tmp_path, ENTRY + '\n' + ENTRY.replace('calm', 'kind')) == (CALM, replace(CALM, id='kind'))


@pytest.mark.parametrize('text, says', [
  (ENTRY + ENTRY.replace("'calm'", "''"), [':6: principle 2 of 2', "field 'id'"]),
  (ENTRY + ENTRY.replace("revise = 'Softer.'\n", ''), [':6: principle 2 of 2', "field 'revise'", 'missing']),
  (ENTRY.replace("'Loud?'", '3'), [':1: principle 1 of 1', "field 'critique' is 3"]),
  (ENTRY + 'colour = 1\n', [':1: principle 1 of 1', "field 'colour'", 'id, critique, revise, prefer']),
  (ENTRY + '# a comment\n' + ENTRY, [':7: principle 2 of 2', "field 'id' is 'calm'"]),
  (ENTRY.replace("'Loud?'", "'Loud"), ['line 3']),
  ('', ['holds nothing']),
  ("principle = 'be good'", ['[[principle]]']),
  ('other = 1\n' + ENTRY, ['other, principle']),
])
def test_a_bad_file_is_refused_once_with_the_place(tmp_path, text, says):
  with pytest.raises(DataError) as refusal:
    principles(tmp_path, text)
  assert str(tmp_path / 'p.toml') in refusal.value.what
  assert all(each in str(refusal.value) for each in says), str(refusal.value)


def test_a_file_that_is_not_there_is_refused(tmp_path):
  with pytest.raises(DataError, match='unreadable'):
    read_principles(tmp_path / 'none.toml')


def test_the_digest_depends_on_the_text_of_principles(tmp_path):
  @dataclass(frozen=True)
  class Thing:
    principles: tuple[Principle, ...]

  one, same, other = (Thing(principles(tmp_path, text)) for text in (
    ENTRY, '# said otherwise\n' + ENTRY.replace("'Loud?'", '"Loud?"'), ENTRY.replace('Softer.', 'Softer!')))
  assert digest(one) == digest(same) != digest(other)


def test_a_critique_sees_the_answer_and_a_revision_sees_the_critique():
  asked = criticising(ASKED, 'WHAT', CALM)
  assert asked == (*ASKED, Message('assistant', 'WHAT'), Message('user', 'Loud?'))
  assert revising(ASKED, 'WHAT', CALM, 'Yes.') == (*asked, Message('assistant', 'Yes.'), Message('user', 'Softer.'))


def test_a_ballot_holds_all_once_and_answers_cannot_name_places_in_it():
  (message,) = Ballot('{talk}|{one}:{first}|{two}:{second}|{prefer}')(ASKED, 'see {second} {two}', '{talk}', CALM)
  assert message == Message('user', 'Human: Hi {first}|A:see {second} {two}|B:{talk}|Which is softer?')


@pytest.mark.parametrize('frame', ['{talk} {first} {second}', '{talk} {first} {second} {prefer} {first}'])
def test_a_frame_that_hides_something_is_refused(frame):
  with pytest.raises(ConfigError, match='just once'):
    Ballot(frame)


@pytest.mark.parametrize('options', [('A', 'A'), ('A', 'AB'), ('', 'B')])
def test_options_that_cannot_be_told_apart_are_refused(options):
  with pytest.raises(ConfigError, match='tell them apart'):
    Ballot(options=options)


def said(worth: float, bias: float) -> np.ndarray:
  """What a judge says who finds the first answer worth so much more, and likes whatever stands first."""
  return np.array([[-np.logaddexp(0, -odds), -np.logaddexp(0, odds)] for odds in (worth + bias, -worth + bias)])


@pytest.mark.parametrize('worth', [-2.0, 0.0, 0.7])
@pytest.mark.parametrize('bias', [-30.0, -1.5, 0.0, 4.0])
def test_a_bias_for_a_place_is_gone_exactly(worth, bias):
  assert label(said(worth, bias)[None]) == pytest.approx(1 / (1 + np.exp(-worth)), abs=1e-9)
  if bias and worth:                                   # each order alone is wrong, and so is the mean of their probabilities
    first, second = np.exp(said(worth, bias)[:, 0])
    assert abs(0.5 * (first + 1 - second) - label(said(worth, bias)[None])) > 0.01


def test_the_label_is_the_mean_over_principles_and_of_the_other_answer_it_is_the_rest():
  logps = np.stack([said(2.0, 1.0), said(-1.0, -3.0), said(0.0, 5.0)])
  mean = np.mean([1 / (1 + np.exp(-worth)) for worth in (2.0, -1.0, 0.0)])
  assert label(logps) == pytest.approx(mean)
  assert label(logps[:, ::-1]) == pytest.approx(1 - mean)
  assert label(logps * 1e4) == pytest.approx(0.5) and label(said(5.0, 0.0)[None], (0.4, 0.6)) == 0.6
