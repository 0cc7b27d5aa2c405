"""Limits: a file of them is read or refused with the place, and in rollouts they are priced, learnt and told."""

import json
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from align.constraint import PID, Dual, Limit, Penalty
from align.credit import Best, FromCritic
from align.critic import Critic
from align.forbidden import Forbidden, Patterns, Personal
from align.kl import Fixed
from align.limits import read_limits
from align.policy import GRPO, PPO
from align.rewards import Length, Part
from model.errors import ConfigError, DataError
from tests.align.rollouts import Letters, learner, opened, rollouts
from train.artifact import digest
from train.canonical import decode, encode
from train.objectives import NextToken
from train.run import Watch

YEARS = "[[limit]]\nname = 'years'\nkind = 'patterns'\npatterns = ['\\d{4}', '17']\nmost = 0.01\n"
OTHERS = """
[[limit]]
name = 'private'
kind = 'personal'
kinds = ['email', 'phone']
most = 0
multiplier = {kind = 'dual', start = 2, rate = 0.5}

[[limit]]
name = 'long'
kind = 'length'
free = 64
most = 8.0
multiplier = {kind = 'penalty', price = 0.5}

[[limit]]
name = 'harm'
kind = 'model'
model = 'letters'
most = 1.5
"""


def limits(folder, text, **models):
  (folder / 'l.toml').write_text(text)
  return read_limits(folder / 'l.toml', models)


def test_limits_are_read_in_their_order(tmp_path):
  found = limits(tmp_path, YEARS + OTHERS, letters=Letters())
  assert found == (Limit('years', Forbidden(Patterns(('\\d{4}', '17'))), 0.01, PID()),
                   Limit('private', Forbidden(Personal(('email', 'phone'))), 0.0, Dual(2.0, 0.5)),
                   Limit('long', Length(1.0, 64), 8.0, Penalty(0.5)), Limit('harm', Letters(), 1.5))
  assert isinstance(found[1].most, float) and decode(json.loads(json.dumps(encode(found[:3])))) == found[:3]


def test_the_digest_depends_on_what_a_file_says_and_not_on_how(tmp_path):
  @dataclass(frozen=True)
  class Thing:
    limits: tuple[Limit, ...]

  one, same, other = (Thing(limits(tmp_path, text)) for text in (
    YEARS, '# said otherwise\n' + YEARS.replace("'years'", '"years"'), YEARS.replace('0.01', '0.02')))
  assert digest(one) == digest(same) != digest(other)


@pytest.mark.parametrize('text, says', [
  (YEARS + YEARS, [':6: limit 2 of 2', "'years'", 'another one']),
  (YEARS.replace('most = 0.01\n', ''), [':1: limit 1 of 1', "field 'most'", 'missing']),
  (YEARS.replace('0.01', "'few'"), [':1: limit 1 of 1', "most = 'few'", 'float']),
  (YEARS.replace("'\\d{4}'", "'('"), [':1: limit 1 of 1', "pattern '('"]),
  (YEARS.replace("'\\d{4}'", '3'), ['patterns']),
  (YEARS.replace("'patterns'\n", "'words'\n"), ["field 'kind' is 'words'", 'patterns, personal, length, model']),
  (YEARS + 'colour = 1\n', ["field 'colour'", 'name, kind, most, multiplier, patterns']),
  (YEARS.replace("'years'", "'the years'"), ["field 'name' is 'the years'"]),
  (YEARS + "multiplier = {kind = 'lever'}\n", ["field 'multiplier'", 'pid, dual, penalty']),
  (YEARS + "multiplier = {rate = 0.1}\n", ["field 'multiplier'", "field 'rate'", 'proportional, integral']),
  (YEARS + "multiplier = {kind = 'penalty'}\n", ["field 'multiplier'", 'price']),
  (YEARS + "multiplier = {kind = 'dual', rate = -1.0}\n", ["field 'multiplier'", 'above zero']),
  (OTHERS, ["field 'model' is 'letters'", 'the experiment gives none']),
  (OTHERS.replace("'email'", "'mail'"), ["'mail'"]),
  (YEARS.replace('most', 'most = ='), ['line 5']), ('', ['holds nothing']), ("limit = 'be good'", ['[[limit]]'])])
def test_a_bad_file_is_refused_once_with_the_place(tmp_path, text, says):
  with pytest.raises(DataError) as refusal:
    limits(tmp_path, text)
  assert str(tmp_path / 'l.toml') in refusal.value.what
  assert all(each in str(refusal.value) for each in says), str(refusal.value)


@dataclass(frozen=True)
class Number(Letters):
  """The number of the question: the same for all answers to it."""

  def score(self, question, answer):
    return float(question.id.split()[1])


LONG = Limit('long', Length(1.0), most=2.0, multiplier=Penalty(3.0))


def test_a_cost_has_a_critic_of_its_own_and_its_advantage_is_taken_off(world):
  """By the combination's law over the same answers: columns at price 0 and 3 differ by the cost's advantage alone."""
  before, store, vocabulary = world
  free = rollouts(vocabulary, credit=FromCritic(), limits=(replace(LONG, multiplier=Penalty(0.0)),), kl=Fixed(0.0))
  found = {}
  for price, rows in ((0.0, free), (3.0, replace(free, limits=(LONG,)))):
    run = learner(before, rows, objective=PPO(critics=('reward', 'long')), edits=(Critic(), Critic('long')))
    setting, source, state = opened(run, store)
    with jax.set_mesh(setting.built.mesh):
      batch = source(state)
      metrics = jax.eval_shape(setting.built.step, state, setting.frozen, batch)[1]
    found[price] = source.buffer
    assert {'value_loss/reward', 'value_loss/long', 'explained/long', 'cost/long', 'multiplier/long'} <= metrics.keys()
  kept = found[0.0]['mask'] > 0
  returns = found[0.0]['returns/long'][kept]
  lengths = found[0.0]['mask'].sum(1, keepdims=True) * found[0.0]['mask']
  assert returns.min() > 0 and returns.max() <= 6 and (returns <= lengths[kept] + 1e-5).all()        # in tokens, not whitened
  cost = (found[0.0]['advantage'] - 4 * found[3.0]['advantage'])[kept] / 3
  assert abs(cost.mean()) < 1e-4 and cost.std() == pytest.approx(1, abs=1e-2)
  np.testing.assert_array_equal(found[3.0]['seen/multiplier/long'], 3)


def test_a_cost_is_foretold_by_its_own_critic(world):
  """With decay 0 the return of a token is what the critic of the cost says after it, and the cost itself at the end."""
  before, store, vocabulary = world
  rows = rollouts(vocabulary, credit=FromCritic(decay=0.0), limits=(LONG,), kl=Fixed(0.0))
  run = learner(before, rows, objective=PPO(critics=('reward', 'long')), edits=(Critic(), Critic('long')))
  setting, source, state = opened(run, store)
  state.params['critics']['long']['score']['vector'] = jnp.ones(16)
  with jax.set_mesh(setting.built.mesh):
    source(state)
  columns = source.buffer
  assert not columns['values/reward'].any() and np.abs(columns['values/long']).max() > 0.1
  for row in range(16):
    kept = columns['mask'][row] > 0
    wanted = [*columns['values/long'][row][kept][1:], kept.sum()]
    np.testing.assert_allclose(columns['returns/long'][row][kept], wanted, rtol=1e-4, atol=1e-4)


def test_an_unlearnt_critic_and_a_limit_that_would_do_nothing_are_refused(world):
  before, _, vocabulary = world
  rows = rollouts(vocabulary, credit=FromCritic(), limits=(LONG,))
  edits = (Critic(), Critic('long'))
  for wrong, id in ((lambda: learner(before, rows, objective=PPO(), edits=edits), 'config.critics'),
                    (lambda: learner(before, rows, objective=GRPO(), edits=edits), 'config.critics'),
                    (lambda: learner(before, rollouts(vocabulary), objective=PPO()), 'config.critics'),
                    (lambda: learner(before, rows, objective=PPO(), edits=edits[:1]), 'config.critic'),
                    (lambda: rollouts(vocabulary, credit=Best(), limits=(LONG,)), 'config.limits')):
    with pytest.raises(ConfigError) as caught:
      wrong()
    assert caught.value.id == id
  assert learner(before, rollouts(vocabulary, credit=Best(), kl=Fixed(0.0)), objective=NextToken())


def test_answers_that_differ_in_cost_alone_teach_and_all_that_were_drawn_are_counted(world):
  """With a reward that is the same for all, questions give way only where costs are alike, too; and the cost that a limit sees
  is the mean over all twelve then, not over the four that are learnt from."""
  before, store, vocabulary = world
  dull = (Part('none', Length(0.0)),)
  for cost, asked in ((Letters(), range(4, 12)), (Number(), range(12, 13))):
    rows = rollouts(vocabulary, rewards=dull, refill=2, kl=Fixed(0.0), limits=(Limit('cost', cost, 0.5, PID(1.0, 0.0)),))
    setting, source, state = opened(learner(before, rows), store)
    with jax.set_mesh(setting.built.mesh):
      source(state)
    assert source.asked in asked
  assert source.multipliers.memories[0][0] == np.mean(range(12)) - 0.5


def test_costs_of_held_out_answers_are_told(world):
  before, store, vocabulary = world
  run = learner(before, rollouts(vocabulary, limits=(LONG,)), watch=Watch(heldout=1, heldout_rows=4))
  setting, source, state = opened(run, store)
  with jax.set_mesh(setting.built.mesh):
    found = run.rows.evaluator(setting, 4)(state.params)
  assert found['heldout_long'] == found['heldout_answer_tokens'] > 0
  source.close()


@dataclass(frozen=True)
class Holding(Letters):
  """A cost that needs room."""

  def holds(self, run):
    return {'its': np.zeros(3)}


def test_what_a_cost_holds_is_told(world):
  before, _, vocabulary = world
  run = learner(before, rollouts(vocabulary, kl=Fixed(0.0), limits=(Limit('harm', Holding(), 0.0),)))
  assert list(run.rows.holds(run, run.build())) == ['the reward harm']
