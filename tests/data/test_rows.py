"""The order of rows is a function of seed and step: not of processes, of devices, or of where a run was cut off."""

import json
import os
import socket
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import jax
import numpy as np
import pytest

from model.errors import CheckpointError, ConfigError, DataError
from model.sharding import MeshShape, batch_sharding
from model.tokenizer import MASK
from tests.data.fake_corpus import FakeCorpus, made
from tests.data.noticed import check_noticed
from train.artifact import Store
from train.data.masking import Masking, Span, Word
from train.data.mixture import Mixture, Share
from train.data.pack import Stream, Whole
from train.data.pipeline import Batches, Placement, held
from train.data.rows import Rows
from train.data.tokens import Tokens
from train.data.visits import Visits

BATCH = 8


@pytest.fixture(scope='module')
def shared(tmp_path_factory):
  return made(tmp_path_factory.mktemp('runs'), count=24)


def kinds(tokens) -> list[Rows]:
  mixture = Mixture((Share(tokens, 2.0, source='odd'), Share(tokens, 1.0, source='even')))
  return [Rows(tokens, 16), Rows(tokens, 16, packing=Whole(), seed=3), Rows(mixture, 16),
          Rows(tokens, 16, masking=Masking()), Rows(tokens, 16, masking=Masking(unit=Word()))]


@pytest.fixture(params=range(5), ids=['stream', 'whole', 'mixture', 'masked', 'words'])
def rows(request, shared) -> Rows:
  return kinds(shared[0])[request.param]


def batches(rows: Rows, store: Store, mine: np.ndarray | None = None) -> Batches:
  """The pipeline without devices, of a process that makes the rows `mine` of each batch."""
  visits = rows.visits(store)
  return Batches(visits, BATCH, rows=mine, stages=rows.stages(store, visits.parts[0].tokens))


def same(one, other) -> bool:
  return one.keys() == other.keys() and all((np.asarray(one[name]) == np.asarray(other[name])).all() for name in one)


def test_each_token_is_a_target_once_an_epoch(shared):
  """Counted in the rows themselves: a row's targets, told by segments alone, are the documents without their bos."""
  tokens, store = shared
  opened, visits = tokens.open(store, 'train'), Rows(tokens, 16).visits(store)
  bos = opened.ids[0]
  for epoch in range(2):
    counts = Counter()
    for number in range(epoch * visits.rows, (epoch + 1) * visits.rows):
      row = visits[number]
      inside = (row['segments'][1:] == row['segments'][:-1]) & (row['segments'][1:] > 0)
      counts.update(row['tokens'][1:][inside].tolist())
    assert counts == Counter(opened.ids[opened.ids != bos].tolist())


@pytest.mark.parametrize('packing', [Stream(), Whole()])
def test_a_segment_is_a_piece_of_one_document(shared, packing):
  tokens, store = shared
  opened, visits = tokens.open(store, 'train'), Rows(tokens, 32, packing=packing).visits(store)
  texts = [opened.ids[begin:end].tobytes() for begin, end in zip(opened.offsets, opened.offsets[1:], strict=False)]
  for number in range(visits.rows):
    row = visits[number]
    used = row['segments'][row['segments'] > 0]
    assert (np.diff(used) >= 0).all() and set(used) == set(range(1, used[-1] + 1))
    assert not row['tokens'][len(used):].any() and not row['segments'][len(used):].any()
    for segment in set(used.tolist()):
      piece = row['tokens'][row['segments'] == segment].astype(np.uint16).tobytes()
      assert any(piece in text for text in texts)


def test_rows_are_counted_through_all_epochs(rows, shared):
  source = batches(rows, shared[1])
  found = np.concatenate([source()['record'] for _ in range(30)])
  assert found.tolist() == list(range(30 * BATCH)) and found.dtype == np.int32
  source.close()


def test_epochs_are_laid_and_visited_anew(shared):
  visits = Rows(shared[0], 16).visits(shared[1])
  first, second = ([visits[e * visits.rows + i]['tokens'].tobytes() for i in range(visits.rows)] for e in range(2))
  assert first != second and len(set(first) & set(second)) < visits.rows / 2
  places = [[visits.parts[0].place(e * visits.rows + i) for i in range(visits.rows)] for e in range(2)]
  assert [row for _, row in places[0]] != [row for _, row in places[1]]


@pytest.mark.parametrize('processes', [1, 2, 4])
def test_processes_share_one_order(rows, shared, processes):
  whole = batches(rows, shared[1])
  shares = np.split(np.arange(BATCH), processes)
  each = [batches(rows, shared[1], share) for share in shares]
  for _ in range(4):
    wanted, parts = whole(), [source() for source in each]
    assert same(wanted, {name: np.concatenate([part[name] for part in parts]) for name in wanted})
  assert all(source.save() == whole.save() for source in each)
  for source in (whole, *each):
    source.close()


def test_resume_at_every_step_is_as_never_having_stopped(rows, shared):
  """Into fresh objects, over the end of an epoch, and on another number of processes."""
  store = shared[1]
  whole = batches(rows, store)
  steps = max(part.rows for part in whole.visits.parts) // BATCH + 4
  wanted, positions = [], [whole.save()]
  for _ in range(steps):
    wanted.append(whole())
    positions.append(whole.save())
  whole.close()
  half = np.arange(BATCH // 2, BATCH)
  for step in range(0, steps, 5):
    position = json.loads(json.dumps(positions[step]))
    fresh, other = batches(rows, store), batches(rows, store, half)
    for source in (fresh, other):
      source()
      source.load(position)
    for place in range(step, min(step + 3, steps)):
      assert same(fresh(), wanted[place])
      assert same(other(), {name: value[half] for name, value in wanted[place].items()})
    assert fresh.save() == other.save() == positions[min(step + 3, steps)]
    fresh.close()
    other.close()


def test_the_test_of_resuming_can_fail(rows, shared):
  """Negative control: a source whose position is forgotten gives other batches."""
  source = batches(rows, shared[1])
  source()
  second, forgotten = source(), batches(rows, shared[1])
  assert not same(second, forgotten())
  source.close()
  forgotten.close()


def test_another_pipeline_is_refused_and_says_what_differs(shared, tmp_path):
  tokens, store = shared
  position = batches(Rows(tokens, 16), store).save()
  other, other_store = made(tmp_path, count=25)
  for wrong, where, said in (
      (Rows(tokens, 32), store, 'length was 16, is 32'),
      (Rows(tokens, 16, seed=5), store, 'seed was 0, is 5'),
      (Rows(tokens, 16, packing=Whole()), store, 'packing.type was train.data.pack.Stream'),
      (Rows(tokens, 16, masking=Masking()), store, 'stages was'),
      (Rows(Mixture((Share(tokens, 1.0, 'odd'), Share(tokens, 1.0, 'even'))), 16), store, 'quota was'),
      (Rows(other, 16), other_store, 'sources.0.tokens was')):
    with pytest.raises(CheckpointError, match=said) as caught:
      batches(wrong, where).load(position)
    assert caught.value.id == 'data.other-pipeline'
  with pytest.raises(CheckpointError, match='batch was 8, is 4'):
    Batches(Rows(tokens, 16).visits(store), 4).load(position)
  with pytest.raises(CheckpointError, match='no pipeline wrote'):
    batches(Rows(tokens, 16), store).load({'step': 3})
  batches(Rows(tokens, 16), store).load(position)


def test_a_name_may_change_and_the_order_goes_on(shared, tmp_path):
  tokens, store = shared
  renamed = Tokens(name='renamed', corpus=tokens.corpus, vocabulary=tokens.vocabulary)
  store.make(renamed)
  batches(Rows(renamed, 16), store).load(batches(Rows(tokens, 16), store).save())


def test_changed_tokens_are_refused_on_resume(tmp_path):
  tokens, store = made(tmp_path, count=24)
  check_noticed(store.find(tokens) / 'train.npy', lambda: Rows(tokens, 16).visits(store))


def test_fewer_rows_than_a_batch_are_refused(shared):
  visits = Rows(shared[0], 512).visits(shared[1])
  with pytest.raises(DataError, match=rf'too-small.*: {visits.rows} rows of 512 .*\n.*takes {visits.rows + 1} rows'):
    Batches(visits, visits.rows + 1)
  Batches(visits, visits.rows)


def test_a_source_without_training_documents_is_refused(shared):
  corpus = FakeCorpus(name='fake', train=('an even document',), heldout=('even', 'odd'))
  tokens, store = Tokens(name='few', corpus=corpus, vocabulary=shared[0].vocabulary), shared[1]
  store.make(tokens)
  with pytest.raises(DataError, match=r'mixture\.empty-source.*few-.*/odd'):
    Rows(Mixture((Share(tokens, 1.0, 'odd'),)), 4).visits(store)


def test_records_are_described_for_people(rows, shared):
  source = batches(rows, shared[1])
  for record in source()['record'][:3]:
    part, index = source.visits.schedule.locate(int(record))
    epoch, row = source.visits.parts[part].place(index)
    assert source.describe(int(record)).startswith(f'row {row} of epoch {epoch} of tokens0')
    assert ':train-' in source.describe(int(record))
  source.close()


@pytest.mark.parametrize('shape', [MeshShape(), MeshShape(data=2, fsdp=2, tensor=2), MeshShape(data=1, fsdp=4, seq=2)])
def test_batches_lie_on_the_mesh_in_their_order(shared, shape):
  rows, store, mesh = Rows(shared[0], 16), shared[1], shape.build()
  source, plain = rows.source(store, batch=BATCH, mesh=mesh), batches(rows, store)
  batch, wanted = source(), plain()
  assert same(batch, wanted)
  assert all(value.sharding == batch_sharding(mesh) for value in batch.values())
  source.close()
  plain.close()


@pytest.mark.parametrize('shape', [MeshShape(), MeshShape(data=2, fsdp=2, tensor=2), MeshShape(fsdp=2, tensor=4)])
def test_a_process_makes_the_rows_that_its_devices_hold(shape):
  """Devices 0-3 and 4-7 as two processes: their rows cover the batch, also where a tensor axis lies across them."""
  sharding, devices = batch_sharding(shape.build()), jax.devices()
  halves = [held(sharding, BATCH, devices[:4]).tolist(), held(sharding, BATCH, devices[4:]).tolist()]
  assert sorted({*halves[0], *halves[1]}) == list(range(BATCH))
  assert held(sharding, BATCH, devices).tolist() == list(range(BATCH))
  if shape == MeshShape():
    assert halves == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_two_processes_lay_one_batch():
  """Two real processes of four devices each, also with a tensor axis across both: each shard holds its rows."""
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  environment = {**os.environ, 'XLA_FLAGS': '--xla_force_host_platform_device_count=4', 'JAX_PLATFORMS': 'cpu'}
  workers = [subprocess.Popen([sys.executable, '-m', 'tests.data.lay_a_batch', str(port), str(index)], env=environment,
                              stdout=subprocess.PIPE, text=True) for index in range(2)]
  assert [worker.communicate(timeout=120)[0].split() for worker in workers] == [['laid'] * 4] * 2


def test_a_batch_that_does_not_divide_is_refused():
  with pytest.raises(ConfigError, match='use a batch of 8 or 16') as caught:
    Placement(MeshShape().build(), 12)
  assert caught.value.id == 'batch.indivisible'
  with pytest.raises(ConfigError, match=r'use a batch of 8$'):
    Placement(MeshShape().build(), 3)


def test_an_error_in_the_thread_that_reads_ahead_comes_out(shared, monkeypatch):
  def broken(self, number):
    raise DataError('data.broken', f'row {number}', 'it is a test', 'nothing')

  monkeypatch.setattr(Visits, '__getitem__', broken)
  with pytest.raises(DataError, match='row 0'):
    batches(Rows(shared[0], 16), shared[1])()


@pytest.mark.parametrize('unit', [Word(), Span()])
def test_words_are_hidden_as_the_vocabulary_cuts_them(unit, shared):
  """In the text that a row stands for, what is chosen is whole words, each but the first with the blank before it."""
  tokens, store = shared
  tokenizer = tokens.vocabulary.load(store)
  heldout, seen = Rows(tokens, 48, masking=Masking(unit=unit)).heldout(store), 0
  for row in (heldout[i] for i in range(len(heldout))):
    told = [b'', *(tokenizer.decode_bytes([token]) for token in row['targets'])]
    begins = [not before or before[-1:] in (b'\n', b'\t') or each[:1].isspace() for before, each in pairwise(told)]
    words = np.split(np.arange(48), np.flatnonzero(begins)[1:])
    shares = [row['mask'][word].mean() for word in words]
    broken, budget = sum(0 < share < 1 for share in shares), round(0.15 * (tokenizer.bytes_of[row['targets']] > 0).sum())
    assert broken == 0 or (broken == 1 and max(shares) < 1 and row['mask'].sum() == budget)
    assert row['mask'].sum() <= max(budget, 1)
    seen += sum(len(word) > 1 and share == 1 for word, share in zip(words, shares))
  assert seen > 3


@pytest.mark.parametrize('name', ['[MASK]', '<mask>'])
def test_masks_of_others_are_known_by_their_names(name, shared):
  tokens, store = shared
  opened = tokens.open(store, 'heldout')
  controls = opened.manifest['controls']
  theirs = replace(opened, manifest=opened.manifest | {'controls': {'[CLS]': 1, name: controls[MASK]}})
  assert Rows(tokens, 16, masking=Masking()).stages(store, theirs)[0].mask_id == controls[MASK]
  with pytest.raises(DataError, match=r'no-mask'):
    Rows(tokens, 16, masking=Masking()).stages(store, replace(opened, manifest=opened.manifest | {'controls': {'[CLS]': 1}}))
