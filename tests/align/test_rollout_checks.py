"""Rollouts that suit no run are refused, before anything is made; and how a run's model is asked."""

from dataclasses import replace

import pytest

from align.credit import FromCritic
from align.policy import GRPO, PPO
from align.template_of import template_of
from model.chat import Plain
from model.errors import ConfigError
from tests.align.learnt import parent, prose
from tests.align.rollouts import learner, rollouts
from tests.data.fake_corpus import FakeCorpus, texts
from train.data.vocabulary import Vocabulary
from train.objectives import NextToken

WORDS = Vocabulary(name='vocabulary', corpus=FakeCorpus(name='fake', train=texts(20)), size=340)
BEFORE = parent(prose(WORDS))


@pytest.mark.parametrize('changes, id', [
  ({'batch': 12}, 'config.batch'), ({'objective': NextToken()}, 'config.rows'),
  ({'restore': None, 'edits': ()}, 'config.no-reference')], ids=str)
def test_rollouts_that_do_not_suit_a_run_are_refused(changes, id):
  with pytest.raises(ConfigError) as caught:
    replace(learner(BEFORE, rollouts(WORDS), objective=GRPO(beta=0.1)), **changes)
  assert caught.value.id == id


def test_rollouts_that_cannot_be_are_refused():
  for fields, id in (({'group': 1}, 'config.group'), ({'rewards': ()}, 'config.rewards'), ({'asked': 0}, 'config.out-of-range'),
                     ({'temperature': 0.0}, 'config.out-of-range')):
    with pytest.raises(ConfigError) as caught:
      rollouts(WORDS, **fields)
    assert caught.value.id == id
  with pytest.raises(ConfigError, match=r'config\.critic'):
    learner(BEFORE, rollouts(WORDS, credit=FromCritic()), objective=PPO())


def test_a_model_is_asked_as_it_was_taught():
  assert template_of(learner(BEFORE, rollouts(WORDS))) == Plain() and template_of(BEFORE) is None
