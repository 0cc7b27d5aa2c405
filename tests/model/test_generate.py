"""What is written must be what the full forward pass would have written, one token at a time, row by row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.decoder import build
from model.errors import ConfigError, DataError
from model.generate import Generated, _advance, _begin, _run, generate, round_up, stages, stream
from model.membership import FEWEST, alike, staying
from model.sampling import GREEDY, Sampling
from tests.model.variants import EXACT, logits, made

PROMPTS = [[1, 2, 3], [4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20], [9]]
KEY = jax.random.key(7)


def full(config, row: list[int]) -> np.ndarray:
  """Logits after the row, f32[V], from one forward pass over it (padded, so that one program serves all lengths)."""
  padded = jnp.zeros((1, 32), jnp.int32).at[0, :len(row)].set(jnp.array(row))
  return logits(config, padded, (jnp.arange(32)[None] < len(row)).astype(jnp.int32))[0, len(row) - 1]


def greedy(config, prompt: list[int], count: int) -> tuple[list[int], list[float]]:
  row, logps = list(prompt), []
  for _ in range(count):
    after = jax.nn.log_softmax(full(config, row))
    row.append(int(after.argmax()))
    logps.append(float(after[row[-1]]))
  return row[len(prompt):], logps


def check_greedy(name: str) -> None:
  """What is generated is, prompt by prompt, what the full forward pass finds likeliest each time."""
  model, params = made(EXACT[name])
  written = generate(model, params, PROMPTS, max_new=5, sampling=GREEDY, key=KEY)
  for prompt, ids, logps in zip(PROMPTS, written.tokens, written.logps):
    expected, expected_logps = greedy(EXACT[name], prompt, 5)
    assert ids.tolist() == expected
    np.testing.assert_allclose(logps, expected_logps, atol=1e-4)
  assert written.reasons == ['length'] * 3


@pytest.mark.parametrize('name', ['llama', 'gemma3'])
def test_greedy_is_the_best_next_token_again_and_again(name):
  check_greedy(name)


def test_logps_are_those_at_the_temperature_whatever_else_the_sampling_does():
  model, params = made(EXACT['llama'])
  odd = Sampling(temperature=0.7, top_k=9, repetition_penalty=1.3)
  written = generate(model, params, PROMPTS[:1], max_new=6, sampling=odd, key=KEY)
  row = PROMPTS[0] + written.tokens[0].tolist()
  expected = [jax.nn.log_softmax(full(EXACT['llama'], row[:3 + i]) / 0.7)[row[3 + i]] for i in range(6)]
  np.testing.assert_allclose(written.logps[0], expected, atol=1e-4)


def test_a_row_does_not_depend_on_its_neighbours_or_on_rounding():
  model, params = made(EXACT['llama'])
  together = generate(model, params, PROMPTS, max_new=9, sampling=Sampling(), key=KEY).tokens
  longer = generate(model, params, [PROMPTS[0], [5]], max_new=20, sampling=Sampling(), key=KEY).tokens
  assert together[0].tolist() == longer[0][:9].tolist()
  other = generate(model, params, PROMPTS, max_new=9, sampling=Sampling(), key=jax.random.key(8)).tokens
  assert together[0].tolist() != other[0].tolist()


def test_a_cache_that_grows_on_the_way_changes_nothing(monkeypatch):
  settings = {'max_new': 40, 'sampling': Sampling(), 'key': KEY}
  _, params = made(EXACT['llama'])
  whole = generate(build(EXACT['llama']), params, [PROMPTS[0], [5]], **settings)
  monkeypatch.setattr('model.generate.WHOLE', 8)
  assert stages(16, 64) == [16, 64]
  grown = generate(build(EXACT['llama']), params, [PROMPTS[0], [5]], **settings)
  for a, b in zip(whole.tokens, grown.tokens):
    np.testing.assert_array_equal(a, b)


def test_the_sizes_of_a_growing_cache():
  assert stages(16, 256) == [256]
  assert stages(16, 1024) == [256, 1024]
  assert stages(512, 1024) == [1024]
  assert stages(64, 8192) == [512, 2048, 8192]


def test_a_stream_gives_the_same_ids_one_by_one():
  """Beyond the first size of its cache."""
  model, params = made(EXACT['llama'])
  settings = {'max_new': 16, 'sampling': Sampling(), 'key': KEY}
  whole = generate(model, params, [PROMPTS[0]], **settings).tokens[0].tolist()
  assert len(whole) == 16
  assert list(stream(model, params, PROMPTS[0], **settings)) == whole
  assert list(stream(model, params, PROMPTS[0], **settings, eos=whole[3])) == whole[:whole.index(whole[3]) + 1]


def test_a_row_ends_at_eos_or_at_a_stop_sequence_or_at_the_limit():
  model, params = made(EXACT['llama'])
  free = generate(model, params, PROMPTS, max_new=8, sampling=Sampling(), key=KEY).tokens
  eos, pair, first = int(free[0][3]), tuple(int(i) for i in free[1][4:6]), int(free[2][0])
  ended = generate(model, params, PROMPTS, max_new=8, sampling=Sampling(), key=KEY, eos=eos, stop=(pair, (first,)))
  for before, after, logps, reason in zip(free, ended.tokens, ended.logps, ended.reasons):
    np.testing.assert_array_equal(after, before[:len(after)])
    assert len(logps) == len(after) == _first_end(before.tolist(), eos, pair, first)
    assert (reason == 'eos') == (after[-1] == eos)
  assert ended.reasons[0] in ('eos', 'stop') and ended.reasons[1] in ('stop', 'eos')
  assert len(ended.tokens[2]) == 1 and ended.reasons[2] in ('eos', 'stop')


def _first_end(row: list[int], eos: int, pair: tuple[int, int], single: int) -> int:
  """How many ids there are up to the first end."""
  for i, token in enumerate(row):
    if token in (eos, single) or tuple(row[max(i - 1, 0):i + 1]) == pair:
      return i + 1
  return len(row)


def test_a_stop_sequence_does_not_reach_back_into_the_prompt():
  model, params = made(EXACT['llama'])
  settings = {'max_new': 8, 'sampling': Sampling(), 'key': KEY}
  first = int(generate(model, params, PROMPTS, **settings).tokens[0][0])
  written = generate(model, params, PROMPTS, **settings, stop=((PROMPTS[0][-1], first), (64, 64)))
  assert written.reasons[0] == 'length' and len(written.tokens[0]) == 8


def test_ids_beyond_the_limit_are_never_written():
  model, params = made(EXACT['llama'])
  hot = Sampling(temperature=50.0)
  free = generate(model, params, PROMPTS, max_new=16, sampling=hot, key=KEY)
  written = generate(model, params, PROMPTS, max_new=16, sampling=hot, key=KEY, limit=11)
  assert max(row.max() for row in written.tokens) < 11 < max(row.max() for row in free.tokens)
  assert all(np.isfinite(row).all() for row in written.logps)


def test_prompts_of_many_lengths_share_a_program():
  """Prompts and answers of many lengths, ends and limits share a program."""
  model, params = made(EXACT['llama'])
  generate(model, params, [[1, 2]], max_new=3, sampling=Sampling(), key=KEY)
  before = _run._cache_size()
  for length, new in ((1, 1), (3, 9), (9, 5), (16, 16)):
    generate(model, params, [[1] * length], max_new=new, sampling=Sampling(), key=KEY, eos=new, limit=60)
  assert _run._cache_size() == before
  assert [round_up(n) for n in (1, 16, 17, 1000, 1024)] == [16, 16, 32, 1024, 1024]


def test_a_second_stream_of_like_lengths_compiles_nothing():
  """Its cache goes through the same sizes, so the programs of all of them are there."""
  model, params = made(EXACT['llama'])

  def programs(length: int, new: int) -> tuple[int, int]:
    list(stream(model, params, [1] * length, max_new=new, sampling=Sampling(), key=KEY, eos=new, limit=60))
    return _begin._cache_size(), _advance._cache_size()

  _begin.clear_cache()
  _advance.clear_cache()
  first = programs(3, 16)
  assert programs(9, 14) == first
  assert programs(17, 16) > first          # a longer prompt is read by another program


def test_a_prompt_that_cannot_be_read_is_refused():
  model, params = made(EXACT['gpt2'])
  settings = {'sampling': GREEDY, 'key': KEY}
  with pytest.raises(DataError, match='prompt 1 has no tokens'):
    generate(model, params, [[1], []], max_new=2, **settings)
  with pytest.raises(DataError, match='ids from 3 to 64'):
    generate(model, params, [[3, 64]], max_new=2, **settings)
  with pytest.raises(ConfigError, match='position table has 32'):
    generate(model, params, [[1] * 30], max_new=3, **settings)
  assert len(generate(model, params, [[1] * 30], max_new=2, **settings).tokens[0]) == 2
  assert len(generate(model, params, [np.array([1, 2])], max_new=2, **settings).tokens[0]) == 2


@pytest.mark.parametrize('prompts, words, settings', [
  ([], 'nothing to go on from', {}), ([[1]], 'number of keys = 2', {'key': jax.random.split(jax.random.key(0))}),
  ([[1]], 'limit = 0', {'limit': 0}), ([[1]], 'an empty sequence', {'stop': ((3,), ())}),
  ([[1]], 'max_new = 0', {'max_new': 0})])
def test_what_cannot_be_meant_is_refused(prompts, words, settings):
  model, params = made(EXACT['gpt2'])
  with pytest.raises(ConfigError, match=words):
    generate(model, params, prompts, **{'sampling': GREEDY, 'key': jax.random.key(0), 'max_new': 2} | settings)


def same(found: Generated, expected: Generated) -> bool:
  return found.reasons == expected.reasons and all(
    a.tolist() == b.tolist() and np.allclose(x, y, atol=1e-5)
    for a, b, x, y in zip(found.tokens, expected.tokens, found.logps, expected.logps, strict=True))


def row_of(written: Generated, row: int) -> Generated:
  return Generated(*(part[row:row + 1] for part in written))


def test_rows_that_end_leave_and_change_nothing(monkeypatch):
  """Twelve rows of many lengths, on the way through smaller batches: each writes what it writes alone."""
  model, params = made(EXACT['llama'])
  prompts, keys = [[row + 1, 5, 9][:1 + row % 3] for row in range(12)], jax.random.split(KEY, 12)
  settings = {'max_new': 24, 'sampling': Sampling(), 'eos': 7, 'stop': ((3, 9), *((i,) for i in range(20, 28)))}
  batches = []
  monkeypatch.setattr('model.prompts.staying', lambda going_C: batches.append(len(kept := staying(going_C))) or kept)
  found = generate(model, params, prompts, key=keys, **settings)
  assert batches[0] < 12 and batches[-1] == FEWEST and len({len(row) for row in found.tokens}) > 5
  for row in range(12):
    assert same(row_of(found, row), generate(model, params, prompts[row:row + 1], key=keys[row:row + 1], **settings))


def test_a_long_row_that_leaves_takes_no_room_with_it(monkeypatch):
  """The cache has grown for a row that ends: the others go on in it, though they need less."""
  monkeypatch.setattr('model.generate.WHOLE', 8)
  model, params = made(EXACT['llama'])
  prompts, settings = [*([i] for i in range(2, 17)), [1] * 16], {'max_new': 24, 'sampling': Sampling(), 'key': KEY}
  free = generate(model, params, prompts, **settings).tokens
  ends = {int(row[2]) for row in free[8:]}
  cut = generate(model, params, prompts, **settings, stop=tuple((i,) for i in ends)).tokens
  assert stages(16, 64) == [16, 64] and len(cut[-1]) <= 3 and 4 < sorted(map(len, cut))[11] < 14
  for row, whole in zip(cut, free):
    assert row.tolist() == whole[:len(row)].tolist()


@pytest.mark.parametrize('penalty', [1.0, 1.3])
def test_prompts_that_are_alike_are_read_once(penalty):
  """Rows of three prompts, in any order: each writes what it would alone with its key, and no two the same."""
  model, params = made(EXACT['llama'])
  prompts, keys = [PROMPTS[i] for i in (0, 1, 0, 0, 1, 2, 0, 1, 1)], jax.random.split(KEY, 9)
  settings = {'max_new': 6, 'sampling': Sampling(1.0, repetition_penalty=penalty)}
  together = generate(model, params, prompts, key=keys, **settings)
  for row in (0, 3, 4, 5):
    alone = generate(model, params, [prompts[row]], key=keys[row:row + 1], **settings)
    assert same(row_of(together, row), alone)
  assert len({tuple(row) for row in together.tokens}) == 9
  first_U, which_B = alike(prompts, 9)
  assert first_U.tolist() == [0, 1, 5, 5] and which_B.tolist() == [0, 1, 0, 0, 1, 2, 0, 1, 1]
  assert alike(PROMPTS, 3)[0].tolist() == [0, 1, 2] and alike([[1]] * 8, 8)[0].tolist() == [0]


def test_what_is_read_of_a_group_is_one_prompt():
  """The control: reading counts the prompts that differ, not the rows."""
  model, params = made(EXACT['llama'])
  rows = []

  def hidden(params, tokens_BL, *rest):
    rows.append(tokens_BL.shape)
    return model.hidden(params, tokens_BL, *rest)

  counted = model._replace(hidden=hidden)
  generate(counted, params, [PROMPTS[1]] * 8, max_new=2, sampling=Sampling(), key=KEY)
  assert rows == [(1, 32), (8, 1)]
