"""What a model makes of texts: each token once, as the whole row says, whatever the windows and the company."""

import sys
from types import ModuleType, SimpleNamespace

import jax
import numpy as np
import pytest

from model.chat import ChatML
from model.errors import ConfigError
from tests.model.chats import own
from tests.model.variants import made, small
from train.eval.likelihood import Likelihoods, Pair

TOKENIZER = own(ChatML())
MODEL, PARAMS = made(small(vocab=-(-TOKENIZER.size // 8) * 8))
TEXTS = ['the state of the union', 'a', 'of the people, by the people', '']


def asked(**fields) -> Likelihoods:
  return Likelihoods(MODEL, PARAMS, TOKENIZER, **({'batch': 3, 'longest': 64} | fields))


@jax.jit
def read(inputs_BL):
  return jax.nn.log_softmax(MODEL.logits(PARAMS, MODEL.hidden(PARAMS, inputs_BL).x_BLD))


def logps(ids: list[int]) -> np.ndarray:
  """f32[L - 1, V]: what follows each token."""
  return np.asarray(read(np.array([ids[:-1]])))[0]


def test_continuations_are_judged_as_in_a_row_of_their_own():
  pairs = [asked().pair(context, after) for context in ('the state', 'of ', '') for after in (' of', 'the people', ' a')]
  for pair, found in zip(pairs, asked().continuations(pairs)):
    row = logps(pair.context + pair.continuation)[-len(pair.continuation):]
    said = row[np.arange(len(row)), pair.continuation]
    assert found.logp == pytest.approx(said.sum(), abs=1e-4)
    assert found.greedy == (row.argmax(-1) == pair.continuation).all()
  likeliest = int(logps([*pairs[0].context, 0])[-1].argmax())
  assert asked().continuations([Pair(pairs[0].context, [likeliest])])[0].greedy


def test_both_are_cut_where_the_context_ends_and_its_last_blanks_go_with_the_continuation():
  found = asked()
  assert found.pair('the state  ', 'of') == found.pair('the state', '  of')
  pair = found.pair('the sta', 'te')
  assert pair.context == TOKENIZER.encode('the sta')
  assert pair.continuation == TOKENIZER.encode('the state')[len(pair.context):]
  assert found.pair('', 'a') == Pair([TOKENIZER.bos], TOKENIZER.encode('a'))


def test_a_text_is_the_sum_of_its_tokens_each_once():
  whole = asked().wholes(TEXTS)
  for text, found in zip(TEXTS, whole):
    ids = [TOKENIZER.bos, *TOKENIZER.encode(text)]
    assert found == pytest.approx(logps(ids)[np.arange(len(ids) - 1), ids[1:]].sum() if text else 0.0, abs=1e-3)
  assert asked(longest=5).wholes(TEXTS)[0] != pytest.approx(whole[0], abs=1e-2)       # less is read: negative control


def test_windows_lie_end_to_end_and_the_last_is_filled_up():
  """As lm-evaluation-harness has them, of 13 tokens with 5 at a time."""
  windows = asked(longest=5)._windows(list(range(100, 113)))
  assert windows == [([TOKENIZER.bos], [100, 101, 102, 103, 104]), ([104], [105, 106, 107, 108, 109]),
                     ([107, 108, 109], [110, 111, 112])]
  assert asked(longest=5)._windows([]) == [] and asked(longest=5)._windows([7]) == [([TOKENIZER.bos], [7])]


def test_long_texts_lose_their_beginning():
  pair = Pair(TOKENIZER.encode('the state of the union ' * 9), TOKENIZER.encode(' of'))
  kept = (pair.context + pair.continuation)[-9:]
  [found] = asked(longest=8).continuations([pair])
  assert found.logp == pytest.approx(logps(kept)[-1, kept[-1]], abs=1e-4)


def test_writing_ends_at_the_first_text_that_ends_it():
  whole = asked().write('the', 12, [])
  assert len(whole) > 2 and asked().write('the', 12, [whole[2:], '', 'never']) == whole[:2]
  assert asked().write('the', 12, [whole[0], whole[1]]) == ''


def test_the_harness_gets_what_it_asks_for(monkeypatch):
  """With its base class alone in the place of lm-evaluation-harness, which tests do not install."""
  for name, held in {'lm_eval': {}, 'lm_eval.api': {}, 'lm_eval.api.instance': {'Instance': object},
                     'lm_eval.api.model': {'LM': object}}.items():
    module = ModuleType(name)
    vars(module).update(held)
    monkeypatch.setitem(sys.modules, name, module)
  monkeypatch.delitem(sys.modules, 'train.eval.harness', raising=False)
  from train.eval.harness import Harness
  found, requests = Harness(asked()), [SimpleNamespace(args=('the state', ' of')), SimpleNamespace(args=('the', ' a'))]
  assert found.loglikelihood(requests) == asked().continuations([asked().pair(*each.args) for each in requests])
  assert found.loglikelihood_rolling([SimpleNamespace(args=(text,)) for text in TEXTS]) == asked().wholes(TEXTS)
  written = asked().write('the', 6, [])
  assert found.generate_until([SimpleNamespace(args=('the', {'until': written[2], 'max_gen_toks': 6}))]) == [
    written[:written.index(written[2])]]
  monkeypatch.delitem(sys.modules, 'train.eval.harness')


def test_what_makes_no_sense_is_refused():
  for wrong in ({'batch': 0}, {'longest': 1}):
    with pytest.raises(ConfigError):
      asked(**wrong)
