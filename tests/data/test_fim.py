"""A text with a gap holds the text, in one of two orders that are put together again."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import ConfigError
from model.tokenizer import FIM_MIDDLE, FIM_PREFIX, FIM_SUFFIX, SentencePiece, train_bpe
from tests.data.fake_corpus import texts
from train.data.fim import Fim


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory) -> SentencePiece:
  path = tmp_path_factory.mktemp('tokenizer') / 'tokenizer.model'
  path.write_bytes(train_bpe(texts(40), 340))
  return SentencePiece(path)


def parts(ids, tokenizer) -> dict[str, str]:
  """The text after each mark; '' is what comes before the first."""
  found, name = {'': []}, ''
  marks = {tokenizer.controls[mark]: mark for mark in (FIM_PREFIX, FIM_MIDDLE, FIM_SUFFIX)}
  for i in ids:
    if i in marks:
      name = marks[i]
      found[name] = []
    else:
      found[name].append(i)
  return {name: tokenizer.decode(ids) for name, ids in found.items()}


def together(ids, tokenizer) -> str:
  found = parts(ids, tokenizer)
  if len(found) == 1:
    return found['']
  assert found[''] == '' and list(found)[-1] == FIM_MIDDLE
  if list(found) == ['', FIM_PREFIX, FIM_SUFFIX, FIM_MIDDLE] and found[FIM_PREFIX]:
    return found[FIM_PREFIX] + found[FIM_MIDDLE] + found[FIM_SUFFIX]
  return found[FIM_MIDDLE] + found[FIM_SUFFIX]


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(exclude_categories=['Cs']), max_size=60), st.integers(0, 99),
       st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([1, 7, 4096]))
def test_nothing_is_lost(tokenizer, text, seed, order, longest):
  made = list(Fim(rate=0.7, suffix_first=order, longest=longest, seed=seed)(text, 'id', tokenizer))
  assert ''.join(together(ids, tokenizer) for ids in made) == text
  assert len(made) == max(1, -(-len(text) // longest))


def test_both_orders_worked_by_hand(tokenizer, monkeypatch):
  """'abcdef' cut after 2 and 4 characters."""
  monkeypatch.setattr('train.data.fim.fractions', lambda key, count: [0.0, 0.9, 4.1 / 7, 2.1 / 7])
  assert parts(next(Fim(suffix_first=0.5)('abcdef', 'id', tokenizer)), tokenizer) == {
    '': '', FIM_PREFIX: 'ab', FIM_SUFFIX: 'ef', FIM_MIDDLE: 'cd'}
  ids = next(Fim(suffix_first=1.0)('abcdef', 'id', tokenizer))
  assert parts(ids, tokenizer) == {'': '', FIM_PREFIX: '', FIM_SUFFIX: 'ef', FIM_MIDDLE: 'abcd'}


def test_rates_are_kept(tokenizer):
  fim = Fim(rate=0.5, suffix_first=0.25)
  made = [next(fim('hello world', str(i), tokenizer)) for i in range(2000)]
  marked = [ids for ids in made if ids[0] == tokenizer.controls[FIM_PREFIX]]
  suffix_first = [ids for ids in marked if ids[1] == tokenizer.controls[FIM_SUFFIX]]
  assert len(marked) / 2000 == pytest.approx(0.5, abs=5 * 0.0112)
  # an empty prefix (1 cut in 12 at the start, twice: 2/12 - 1/144) looks the same in both orders
  assert len(suffix_first) / len(marked) == pytest.approx(0.25 + 0.75 * 23 / 144, abs=5 * 0.0155)


def test_a_function_of_the_seed_and_the_document(tokenizer):
  one = [list(Fim(seed=1)('some text here', str(i), tokenizer)) for i in range(20)]
  assert one == [list(Fim(seed=1)('some text here', str(i), tokenizer)) for i in range(20)]
  assert one != [list(Fim(seed=2)('some text here', str(i), tokenizer)) for i in range(20)]
  assert any(one[0] != other for other in one)


@pytest.mark.parametrize('fields', [dict(rate=1.2), dict(suffix_first=-0.1), dict(longest=0)])
def test_settings_that_cannot_be(fields):
  with pytest.raises(ConfigError, match=f'fim.{next(iter(fields))}'):
    Fim(**fields)
