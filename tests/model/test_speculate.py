"""Speculation writes what one id after another would have been: the same ids where no chance is in it, else the same law."""

import itertools
import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi2

from model.accept import probabilities
from model.decoder import build
from model.errors import ConfigError, DataError
from model.generate import generate
from model.lookup import Lookup
from model.membership import FEWEST, staying
from model.rounds import Draft
from model.sampling import GREEDY, Sampling
from model.sharding import MeshShape, shardings
from model.speculate import _run, speculate
from tests.model.test_generate import same
from tests.model.variants import EXACT, logits, made, small

PROMPTS = [[1, 2, 3], [4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20], [9], [3, 4, 5, 3, 4, 5, 3, 4]]
KEY = jax.random.key(7)
ODD = Sampling(0.7, top_k=9, top_p=0.95, min_p=0.01, repetition_penalty=1.3)


NO_STOPS = ((63, 63), (62, 62))     # of the same sizes as those that end rows here, so that one program does for both


def perfect(ahead: int = 4) -> Draft:
  """The model itself."""
  return Draft(*made(EXACT['llama']), ahead)


def poor(ahead: int = 4) -> Draft:
  return Draft(*made(small(layers=1)), ahead)


def both(name: str, drafter, prompts, **settings):
  """What is written one by one and by speculation, checked to be the same, and the passes."""
  model, params = made(EXACT[name])
  plain = generate(model, params, prompts, key=KEY, **settings)
  written, passes = speculate(model, params, prompts, drafter=drafter, key=KEY, **settings)
  assert [row.tolist() for row in written.tokens] == [row.tolist() for row in plain.tokens]
  assert written.reasons == plain.reasons
  for a, b in zip(written.logps, plain.logps):
    np.testing.assert_allclose(a, b, atol=1e-4)
  return written, passes


@pytest.mark.parametrize('name, drafter, sampling', [
  ('llama', Lookup(), GREEDY), ('llama', Lookup(least=1), ODD), ('gemma3', poor(), GREEDY)])
def test_it_writes_what_generate_writes(name, drafter, sampling):
  _, passes = both(name, drafter, PROMPTS, max_new=24, sampling=sampling)
  assert all(1 < count <= 24 for count in passes)


def test_lookup_saves_passes_where_text_repeats():
  """The greedy text of so small a model goes round and round."""
  _, passes = both('llama', Lookup(), PROMPTS, max_new=32, sampling=GREEDY)
  assert passes[3] <= 10 and sum(passes) < 32 * 2


def test_ends_cut_within_a_round():
  """All that this draft proposes is accepted, so that each of these ends lies within a round of five or at its edge."""
  settings = {'drafter': perfect(), 'prompts': PROMPTS, 'sampling': Sampling(0.0, repetition_penalty=1.2)}
  (free, _, _), _ = both('llama', max_new=12, stop=NO_STOPS, **settings)
  for k in range(7):
    eos, pair = int(free[0][k]), tuple(int(i) for i in free[1][k:k + 2])
    cut, _ = both('llama', max_new=12, eos=eos, stop=(pair, NO_STOPS[0]), **settings)
    assert len(cut.tokens[0]) <= k + 1 and cut.reasons[0] in ('eos', 'stop') and cut.reasons[1] in ('eos', 'stop')
    both('llama', max_new=k + 1, limit=60, stop=NO_STOPS, **settings)
  over = (PROMPTS[0][-1], int(free[0][0]))        # begins in the prompt, where no stop sequence can
  assert both('llama', max_new=12, stop=(over, NO_STOPS[0]), **settings)[0].reasons[0] == 'length'


def test_a_perfect_draft_is_always_accepted():
  model, params = made(EXACT['llama'])
  written, passes = speculate(model, params, PROMPTS, drafter=perfect(), max_new=24, sampling=ODD, key=KEY)
  assert passes == [1 + math.ceil(23 / 5)] * 4 and all(len(row) == 24 for row in written.tokens)


def test_rows_do_not_depend_on_one_another():
  model, params = made(EXACT['llama'])
  settings = {'drafter': poor(ahead=1), 'sampling': Sampling(), 'key': KEY}
  one, _ = speculate(model, params, PROMPTS, max_new=24, **settings)
  two, _ = speculate(model, params, [PROMPTS[0], [5] * 19, [6], [7, 8]], max_new=20, **settings)
  assert one.tokens[0][:20].tolist() == two.tokens[0].tolist()


def test_the_last_positions_of_a_table_can_be_written():
  """Proposals reach beyond the model's positions there."""
  both('gpt2', Lookup(), [[1, 2] * 14, [3, 4, 5]], max_new=4, sampling=GREEDY)


def test_caches_that_grow_on_the_way_change_nothing(monkeypatch):
  monkeypatch.setattr('model.generate.WHOLE', 8)
  _, params = made(EXACT['llama'])
  whole = generate(build(EXACT['llama']), params, PROMPTS[:1], max_new=40, sampling=GREEDY, key=KEY)
  written, _ = speculate(build(EXACT['llama']), params, PROMPTS[:1], drafter=poor(1), max_new=40, sampling=GREEDY, key=KEY)
  assert written.tokens[0].tolist() == whole.tokens[0].tolist()


@pytest.mark.parametrize('drafter, sampling', [(Lookup(), GREEDY), (poor(ahead=2), ODD)])
def test_a_mesh_writes_what_one_device_writes(drafter, sampling, monkeypatch):
  """Rows over four devices, heads over two, and so the caches after many rounds."""
  model, params = made(EXACT['llama'])
  settings = {'max_new': 24, 'sampling': sampling, 'key': KEY, 'eos': 7}
  one = speculate(model, params, PROMPTS, drafter=drafter, **settings)
  lain = []

  def run(*args):
    now, told = _run(*args)
    lain.extend(cache.layers[0].k_BGSK for cache in (now.cache, now.drafted) if cache)
    return now, told

  monkeypatch.setattr('model.speculate._run', run)
  with jax.set_mesh(mesh := MeshShape(data=4, tensor=2).build()):
    placed = jax.device_put(params, shardings(jax.eval_shape(model.init, KEY), mesh))
    found = speculate(model, placed, PROMPTS, drafter=drafter, **settings)
  assert [row.tolist() for row in found.written.tokens] == [row.tolist() for row in one.written.tokens]
  assert found.written.reasons == one.written.reasons
  if isinstance(drafter, Draft):            # `Lookup` is given more to judge where a device has fewer rows
    assert found.passes == one.passes
  for a, b in zip(found.written.logps, one.written.logps):
    np.testing.assert_allclose(a, b, atol=1e-4)
  assert {x.sharding.shard_shape(x.shape)[:2] for x in lain} == {(1, 1)} and lain[0].shape[:2] == (4, 2)


@pytest.mark.parametrize('drafter', [Lookup(least=1), poor(ahead=1)])
def test_rows_that_end_leave_and_change_nothing(drafter, monkeypatch):
  """Twelve rows of many lengths, on the way through smaller batches: each writes what it writes alone."""
  model, params = made(EXACT['llama'])
  prompts, keys = [[row + 1, 5, 9][:1 + row % 3] for row in range(12)], jax.random.split(KEY, 12)
  settings = {'drafter': drafter, 'max_new': 24, 'sampling': Sampling(), 'eos': 7,
              'stop': ((3, 9), *((i,) for i in range(20, 28)))}
  batches = []
  monkeypatch.setattr('model.prompts.staying', lambda going_C: batches.append(len(kept := staying(going_C))) or kept)
  found, passes = speculate(model, params, prompts, key=keys, **settings)
  assert batches[0] < 12 and batches[-1] == FEWEST and len({len(row) for row in found.tokens}) > 5
  for row in range(12):
    alone, passed = speculate(model, params, prompts[row:row + 1], key=keys[row:row + 1], **settings)
    assert found.tokens[row].tolist() == alone.tokens[0].tolist() and found.reasons[row] == alone.reasons[0]
    np.testing.assert_allclose(found.logps[row], alone.logps[0], atol=1e-5)
    assert isinstance(drafter, Lookup) or passes[row] == passed[0]


@pytest.mark.parametrize('drafter', [Lookup(least=1, ahead=1), poor(ahead=1)])
def test_rows_that_end_make_room_and_change_nothing(drafter):
  """A queue of ragged prompts and answers, three to most prompts, eight at a time: each row writes what it writes among all.

  The last two that are read have one prompt, of a single id: one of them is a row without any.
  """
  model, params = made(EXACT['llama'])
  prompts = [[1], *([*range(row + 1, row + 2 + row * row % 21)] for row in range(6) for _ in range(3))][::-1]
  settings = {'key': KEY, 'max_new': 14, 'sampling': Sampling(1.0, repetition_penalty=1.2),
              'stop': ((3, 9), *((i,) for i in range(20, 28)))}
  found, passes = speculate(model, params, prompts, drafter=drafter, at_once=8, **settings)
  assert len({len(row) for row in found.tokens}) > 5
  if isinstance(drafter, Lookup):
    assert same(found, generate(model, params, prompts, **settings))
  else:
    whole, counts = speculate(model, params, prompts, drafter=drafter, **settings)
    assert same(found, whole) and passes == counts


def test_prompts_that_are_alike_are_read_once():
  """Four answers to each of four prompts: the model and the draft read four prompts, and with a queue of eight two and one."""
  model, params = made(EXACT['llama'])
  draft, read = poor(ahead=1), []

  def hidden(params, tokens_BL, *rest):
    read.append(tokens_BL.shape)
    return model.hidden(params, tokens_BL, *rest)

  def drafted(params, tokens_BL, *rest):
    read.append(tokens_BL.shape)
    return draft.model.hidden(params, tokens_BL, *rest)

  settings = {'drafter': replace(draft, model=draft.model._replace(hidden=drafted)), 'key': KEY, 'max_new': 6,
              'sampling': Sampling(), 'stop': tuple((i,) for i in range(30))}
  prompts = [[row // 4 + 1, 2] for row in range(16)]
  for rows, shapes in ((None, {(4, 16)}), (8, {(2, 16), (1, 16)})):
    read.clear()
    speculate(model._replace(hidden=hidden), params, prompts, at_once=rows, **settings)
    long = [shape for shape in read if shape[1] == 16]
    assert set(long) == shapes and len(long) == 2 * len(shapes)      # each traced once for the model and once for the draft


@pytest.mark.parametrize('cost, ahead, least, most', [(0.0, 5, 1, 12), (100.0, 6, 24, 24)])
def test_how_far_a_pass_looks_ahead_changes_passes_alone(cost, ahead, least, most, monkeypatch):
  """Where positions cost nothing all proposals are judged, and where they cost much none is."""
  monkeypatch.setattr('model.ahead.price', lambda rows: cost)
  _, passes = both('llama', Lookup(ahead=ahead), PROMPTS, max_new=24, sampling=GREEDY)
  assert least <= passes[3] <= most


FIVE, PROMPT, NEW, ROWS = small(vocab=5), [1, 3], 4, 6_000


def exact(sampling: Sampling) -> np.ndarray:
  """The probability of every answer of four ids, f64[5, 5, 5, 5], from full forward passes."""
  before = [list(ids) for length in range(NEW) for ids in itertools.product(range(5), repeat=length)]
  rows = np.array([PROMPT + ids + [-1] * (NEW - len(ids)) for ids in before])
  last = np.array([len(PROMPT) + len(ids) - 1 for ids in before])
  after = jnp.asarray(logits(FIVE, jnp.maximum(rows, 0)))[jnp.arange(len(rows)), last]
  chance = np.asarray(probabilities(sampling, after, (rows[..., None] == np.arange(5)).any(1)), np.float64)
  total, begin = np.ones(()), 0
  for length in range(NEW):
    total = total[..., None] * chance[begin:begin + 5 ** length].reshape(*(5,) * length, 5)
    begin += 5 ** length
  return total


def chance_of(written, expected: np.ndarray) -> float:
  """Of answers as far from the expected as these: chi-square over all of them, the rare ones as one."""
  answers = np.array(written.tokens)
  counts = np.bincount(np.ravel_multi_index(tuple(answers.T), (5,) * NEW), minlength=5 ** NEW)
  means = expected.ravel() * ROWS
  rare = means < 5
  assert counts[means == 0].sum() == 0     # nor any that the sampling leaves out
  seen, due = np.append(counts[~rare], counts[rare].sum()), np.append(means[~rare], max(means[rare].sum(), 1e-9))
  return float(chi2.sf(((seen - due) ** 2 / due).sum(), len(due) - 1))


def drawn(sampling: Sampling):
  """Answers after a draft that is of another mind; of its proposals some are accepted and some are not."""
  draft = Draft(*made(replace(FIVE, layers=1, tied=False)), 2)
  model, (_, params) = build(FIVE), made(FIVE)
  written, passes = speculate(model, params, [PROMPT] * ROWS, drafter=draft, max_new=NEW, sampling=sampling, key=KEY)
  return written, np.mean(passes)


@pytest.mark.parametrize('sampling', [Sampling(), Sampling(0.8, top_k=4, top_p=0.97, repetition_penalty=1.5)])
def test_what_is_drawn_has_the_distribution_of_the_model_whatever_the_draft(sampling):
  written, passes = drawn(sampling)
  assert chance_of(written, exact(sampling)) > 1e-3
  assert 2.3 < passes < 3.7                # of 2 if all were accepted, to 4 if none


def test_were_all_proposals_accepted_it_would_not_be_that_distribution(monkeypatch):
  monkeypatch.setattr('model.accept._accepted', lambda p, q, ids, keys: jnp.ones(ids.shape, bool))
  written, passes = drawn(Sampling())
  assert passes == 2 and chance_of(written, exact(Sampling())) < 1e-9


def test_the_last_longest_agreement_is_what_lookup_goes_on_from():
  def proposed(text, **how):
    row = jnp.array([text + [9] * (12 - len(text))])
    return Lookup(**{'ahead': 3, **how})(row, jnp.array([len(text)]))[0].tolist()

  assert proposed([1, 2, 3, 4, 5, 1, 2]) == [3, 4, 5]
  assert proposed([1, 2, 3, 7, 2, 8, 8, 1, 2], least=1) == [3, 7, 2]          # two agree there, only one at the later 2
  assert proposed([1, 2, 3, 1, 2, 4, 6, 1, 2]) == [4, 6, 1]                  # the last of two
  assert proposed([1, 2, 1, 2], least=2) == [1, 2, 1]                        # round and round
  assert proposed([1, 2, 3, 2], least=2) == [-1, -1, -1]
  assert proposed([1, 2, 3, 2], least=1) == [3, 2, 3]
  assert proposed([4], least=1) == [-1, -1, -1]
  assert proposed([9, 1, 9, 9], least=3) == [-1, -1, -1]                     # what lies beyond the text does not count


def test_what_cannot_work_is_refused():
  model, params = made(EXACT['llama'])
  settings = {'max_new': 8, 'sampling': GREEDY, 'key': KEY}
  with pytest.raises(ConfigError, match='a draft of 5 ids for a model of 64'):
    speculate(model, params, PROMPTS, drafter=Draft(*made(FIVE)), **settings)
  with pytest.raises(ConfigError, match='position table has 32'):
    speculate(model, params, [[1] * 28], drafter=Draft(*made(EXACT['gpt2'])), **settings)
  with pytest.raises(DataError, match='prompt 0 has no tokens'):
    speculate(model, params, [[]], drafter=Lookup(), **settings)
  with pytest.raises(ConfigError, match='at_once'):
    speculate(model, params, PROMPTS, drafter=Lookup(), at_once=0, **settings)
  with pytest.raises(ConfigError, match=r'Lookup\.ahead'):
    Lookup(ahead=0)
  with pytest.raises(ConfigError, match=r'Draft\.ahead'):
    Draft(model, params, 0)
