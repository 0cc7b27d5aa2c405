"""A run as a judge: what it writes is its own, and an option is worth what its ids are worth where they would stand."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from align.judge import ByRun, normalised
from model.chat import ChatML, Message, Plain, prompt
from model.errors import ConfigError, DataError
from tests.align.judges import run
from train.artifact import Store, digest
from train.trained import load

TALKS = [(Message('user', 'Which?'),), (Message('user', 'Hi'), Message('assistant', '7'), Message('user', 'A or B? ' * 5))]


@pytest.fixture(scope='module')
def store(tmp_path_factory):
  store = Store(tmp_path_factory.mktemp('judge'))
  store.make(run())
  return store


@pytest.fixture(scope='module')
def opened(store):
  return ByRun(run(), Plain(), tokens=8, rows=4).open(store)


@pytest.fixture(scope='module')
def logp_LV(store):
  """A function of ids: what is foretold after each, from the whole table of logits."""
  trained = load(run(), store, jax.devices()[:1])

  @jax.jit
  def table(tokens_BL):
    logits_BLV = trained.model.logits(trained.params, trained.model.hidden(trained.params, tokens_BL).x_BLD)
    return jax.nn.log_softmax(logits_BLV[0].astype(jnp.float32), -1)

  return lambda ids: np.asarray(table(np.array([[*ids, *[0] * (96 - len(ids))]])))


def continued(logp_LV, before: list[int], ids: list[int]) -> float:
  """The log-prob of ids after others."""
  table = logp_LV([*before, *ids])
  return sum(float(table[len(before) + place - 1, id]) for place, id in enumerate(ids))


@pytest.mark.parametrize('template, blank', [(Plain(), ' '), (ChatML(), '')])
def test_options_are_weighed_by_the_ids_that_follow_the_prompt(opened, logp_LV, template, blank, monkeypatch):
  monkeypatch.setattr(opened, 'template', template)
  options = ('A', 'B 12 34', 'largest')
  ids = [opened.tokenizer.encode(blank + option) for option in options]
  assert len(set(map(len, ids))) > 1                           # so a mean over tokens would be another number
  expected = [[continued(logp_LV, prompt(template, opened.tokenizer, talk), each) for each in ids] for talk in TALKS]
  found = opened.weigh(TALKS, options)
  np.testing.assert_allclose(found, normalised(np.array(expected)), atol=1e-4)
  np.testing.assert_allclose(np.exp(found).sum(1), 1.0)
  other = [opened.tokenizer.encode(('' if blank else ' ') + option) for option in options]
  wrong = [[continued(logp_LV, prompt(template, opened.tokenizer, talk), each) for each in other] for talk in TALKS]
  assert np.abs(normalised(np.array(wrong)) - found).max() > 1e-2         # the blank is not all the same


def test_what_is_written_depends_on_the_conversation_and_its_seed_alone(opened):
  said = opened.write([*TALKS, TALKS[0], TALKS[0], TALKS[1]], [5, 6, 5, 7, 8])           # more than a lot
  assert opened.write([], []) == [] and opened.write(TALKS[1:], [6]) == said[1:2]
  assert said[0] == said[2] != said[3]
  assert digest(ByRun(run(), rows=1)) == digest(ByRun(run(), rows=3)) != digest(ByRun(run(), tokens=3))


def test_an_answer_that_the_limit_ended_is_told(opened):
  assert any(said.cut for said in opened.write([TALKS[0]] * 4, range(4)))


@pytest.mark.parametrize('options', [('A', 'A B'), ('', 'B'), ('A', 'A')])
def test_options_of_which_one_begins_the_other_are_refused(opened, options):
  with pytest.raises(DataError, match='how the other begins'):
    opened.weigh(TALKS, options)


def test_settings_out_of_range_are_refused():
  for wrong in ({'tokens': 0}, {'prompt_tokens': 0}, {'rows': 0}, {'temperature': -1.0}):
    with pytest.raises(ConfigError, match='mend'):
      replace(ByRun(run()), **wrong)


def test_a_conversation_that_is_too_long_gets_no_answer_and_no_opinion(opened, monkeypatch):
  both = opened.weigh(TALKS, ('A', 'B'))
  monkeypatch.setattr(opened, 'longest', len(prompt(Plain(), opened.tokenizer, TALKS[0])))
  short, long = opened.write(TALKS, [1, 2])
  assert long == ('', True) and short == opened.write(TALKS[:1], [1])[0] != long
  one = opened.weigh(TALKS, ('A', 'B'))
  np.testing.assert_allclose(one[0], both[0], atol=1e-5)
  assert np.isnan(one[1]).all() and not np.isnan(both).any()
