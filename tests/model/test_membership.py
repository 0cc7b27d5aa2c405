"""Rows that end make room for prompts that wait, and leave when none does: what each writes is its own all the same."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest

import model.generate as singly
import model.speculate as together
from model.generate import Generated, _run, generate, stages
from model.lookup import Lookup
from model.membership import FEWEST, GOING, Answers, Told, staying
from model.prompts import _moved, _placed
from model.sampling import Sampling
from model.speculate import speculate
from tests.model.test_generate import KEY, same
from tests.model.variants import EXACT, made

QUEUE = [[*range(row + 1, row + 2 + row * row % 21)] for row in range(22)]
RAGGED = {'max_new': 14, 'sampling': Sampling(), 'stop': ((3, 9), *((i,) for i in range(20, 28)))}


@pytest.fixture(scope='module')
def at_once():
  """The queue all together, by one key and by keys of its own."""
  model, params = made(EXACT['llama'])
  return {key.ndim: generate(model, params, QUEUE, key=key, **RAGGED) for key in (KEY, jax.random.split(KEY, len(QUEUE)))}


@pytest.mark.parametrize('rows, own', [(1, 0), (6, 0), (8, 1), (40, 0)])
def test_rows_that_end_make_room_and_change_nothing(at_once, monkeypatch, rows, own):
  """A queue of ragged prompts and answers, so many at a time: each row writes what it writes among all."""
  model, params = made(EXACT['llama'])
  sizes, given = set(), []
  monkeypatch.setattr('model.generate._run', lambda way, params, ends, now, few: (
    sizes.add(len(now.token_B)) or _run(way, params, ends, now, few)))
  monkeypatch.setattr(Answers, 'give', lambda self, rows_R, give=Answers.give: given.append(len(rows_R)) or give(self, rows_R))
  found = generate(model, params, QUEUE, key=jax.random.split(KEY, len(QUEUE)) if own else KEY, at_once=rows, **RAGGED)
  assert same(found, at_once[own]) and {'stop', 'length'} == set(found.reasons)
  assert max(sizes) == min(rows, 30)                      # 22 prompts are three lots of ten
  assert given == {1: [1] * 21, 6: [1] * 16, 8: [2] * 7, 40: []}[rows]


def test_a_queue_with_a_penalty_and_answers_of_one_word():
  """What a row has read leaves with it, and rows that end with their first id give way at once."""
  model, params = made(EXACT['llama'])
  for settings in ({'max_new': 6, 'sampling': Sampling(repetition_penalty=1.5)}, {'max_new': 1, 'sampling': Sampling()}):
    whole = generate(model, params, QUEUE[:8], key=KEY, **settings)
    assert same(generate(model, params, QUEUE[:8], key=KEY, at_once=4, **settings), whole)


def test_neighbours_that_are_alike_are_read_once_when_they_come_in():
  """Four answers to each of four prompts, eight at a time: two prompts are read at first, then one for each lot of two."""
  model, params = made(EXACT['llama'])
  read = []

  def hidden(params, tokens_BL, *rest):
    read.append(tokens_BL.shape)
    return model.hidden(params, tokens_BL, *rest)

  generate(model._replace(hidden=hidden), params, [[row // 4 + 1, 2] for row in range(16)], key=KEY, at_once=8, **RAGGED)
  assert read[:3] == [(2, 16), (8, 1), (1, 16)] and {shape for shape in read if shape[1] > 1} == {(2, 16), (1, 16)}


def test_a_long_row_makes_all_pay_only_while_it_is_there(monkeypatch):
  """The cache shrinks when it has left, and the others write what they write without it."""
  monkeypatch.setattr('model.generate.WHOLE', 16)
  model, params = made(EXACT['llama'])
  slots = []
  monkeypatch.setattr('model.generate._run', lambda way, params, ends, now, few: (
    slots.append(now.cache.slots) or _run(way, params, ends, now, few)))
  prompts, keys = [[1] * 20, *([row] for row in range(2, 20))], jax.random.split(KEY, 19)
  settings = {'max_new': 14, 'sampling': Sampling(), 'at_once': 4}
  found = generate(model, params, prompts, key=keys, **settings)
  assert stages(16, 64) == [16, 64] and slots[0] == 64 and slots[-1] == 16 and sorted(slots, reverse=True) == slots
  slots.clear()
  alone = generate(model, params, prompts[1:], key=keys[1:], **settings)
  assert set(slots) == {32} and same(Generated(*(part[1:] for part in found)), alone)


def test_rows_that_go_on_stay_and_ended_ones_fill_up_to_a_power_of_two():
  """Those that go on, in order, then ended ones up to a power of two: never more than half of the batch stays idle."""
  rng = np.random.default_rng(0)
  assert staying(np.array([True] * 5 + [False] * 4)).tolist() == list(range(9))
  assert staying(np.array([False, True] * 6)).tolist() == [1, 3, 5, 7, 9, 11, 0, 2]
  for size in range(1, 40):
    for _ in range(10):
      going_C = rng.random(size) < rng.random()
      if not going_C.any():
        continue
      kept = staying(going_C)
      assert len(set(kept)) == len(kept) <= size and set(np.flatnonzero(going_C)) <= set(kept)
      assert len(kept) <= FEWEST or len(kept) < 2 * going_C.sum() or going_C.sum() > size // 2


def test_every_answer_gets_a_row_once_and_a_batch_stops_when_a_lot_is_free():
  rng = np.random.default_rng(0)
  for count, rows in ((1, 1), (5, 16), (9, 16), (16, 16), (50, 16), (50, 3), (7, None)):
    answers, seen = Answers.begin(count, rows), []
    going_C = answers.place_C >= 0
    while answers.waiting or going_C.any():
      writing_C = np.flatnonzero(going_C)
      going_C[rng.permutation(writing_C)[answers.few:]] = False          # as soon as it may stop
      answers.note(Told(*(answers.place_C[:, None] * np.ones((1, 2), int),) * 2, answers.place_C, np.where(going_C, GOING, 1),
                        answers.place_C, answers.place_C))
      free_R = answers.free(going_C)
      assert answers.waiting == bool(len(free_R)) and len(answers.place_C) == len(going_C)
      if len(free_R):
        seen += [number for number in answers.place_C[free_R] if number >= 0]
        going_C[free_R] = answers.give(free_R) >= 0
      else:
        kept = staying(going_C)
        seen += [number for number in np.delete(answers.place_C, kept) if number >= 0]
        answers.keep(kept)
        going_C = going_C[kept]
    seen += [number for number in answers.place_C if number >= 0]
    assert sorted(seen) == list(range(count)) and answers.told.counts_C.tolist() == list(range(count))


@pytest.mark.parametrize('module, write', [(singly, generate), (together, partial(speculate, drafter=Lookup(ahead=1)))])
def test_a_queue_needs_few_programs(module, write):
  """A hundred prompts of up to 60 tokens: a program for each rounded length that is read, and for each size of the batch."""
  model, params = made(replace(EXACT['llama'], vocab=96))       # which no other test has: its programs are none of theirs

  def queue(seed: int, count: int) -> list[int]:
    rng = np.random.default_rng(seed)
    prompts = [rng.integers(0, 64, rng.integers(1, 61)).tolist() for _ in range(count)]
    with programs() as made_of:
      write(model, params, prompts, key=KEY, at_once=16, **RAGGED | {'sampling': Sampling(0.9)})
    return [made_of[f'jit({program.__name__})'] for program in (module._begin, module._run, _placed, _moved)]

  begin, run, placed, moved = queue(0, 100)
  assert 0 < begin <= 4 and run == 3 and 0 < placed <= 3 and 0 < moved <= 3
  assert queue(1, 97)[1] == 0 and sum(queue(0, 100)) == 0


@contextmanager
def programs() -> Iterator[Counter]:
  """How many programs of each name are compiled meanwhile."""
  count: Counter = Counter()

  def heard(event: str, seconds: float, **of) -> None:
    count[of.get('fun_name')] += event == '/jax/core/compile/backend_compile_duration'

  jax.monitoring.register_event_duration_secs_listener(heard)
  try:
    yield count
  finally:
    jax.monitoring.unregister_event_duration_listener(heard)
