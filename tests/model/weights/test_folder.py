"""Folders of published weights: whole ones come back to the bit, and no header or index leads beyond the files' own bytes."""

import json
import os
import random
import tracemalloc

import ml_dtypes
import numpy as np
import pytest

from model.errors import DataError
from model.weights.folder import INDEX, SINGLE, open_tensors, read_config, write_tensors
from model.weights.safetensors import open_safetensors
from model.weights.tensor import Tensor


def tensors(count: int = 4) -> list[Tensor]:
  """Some of several types, one of them empty and one a single number."""
  arrays = {f'w{i}': np.random.default_rng(i).normal(size=(3, 5 + i)).astype(np.float32) for i in range(count)}
  arrays |= {'half': np.arange(6, dtype=np.float16), 'brain': np.arange(6).astype(ml_dtypes.bfloat16).reshape(2, 3),
             'none': np.zeros((0, 3), np.float32), 'one': np.float32(3).reshape(())}
  return [Tensor(name, w.shape, w.dtype, lambda slices, w=w: np.array(w[slices])) for name, w in arrays.items()]


@pytest.mark.parametrize('shard', [10**9, 100])
def test_what_is_written_comes_back_in_one_file_or_many(shard, tmp_path):
  write_tensors(tmp_path, tensors(), shard)
  assert (tmp_path / SINGLE).exists() == (shard > 100) != (tmp_path / INDEX).exists()
  found = open_tensors(tmp_path)
  assert found.keys() == {each.name for each in tensors()}
  for each in tensors():
    assert (found[each.name].shape, found[each.name].dtype) == (each.shape, each.dtype)
    np.testing.assert_array_equal(found[each.name].whole(), each.whole())
  np.testing.assert_array_equal(found['w2'].read((slice(1, 3), slice(2, None))), tensors()[2].whole()[1:3, 2:])
  if shard == 100:
    names = set(json.loads((tmp_path / INDEX).read_text())['weight_map'].values())
    assert len(names) > 2 and names == {path.name for path in tmp_path.glob('*.safetensors')}


def index(folder, places) -> None:
  (folder / INDEX).write_text(json.dumps({'weight_map': places}))


@pytest.mark.parametrize('place', ['../secret.safetensors', '/etc/passwd', 'sub/a.safetensors', 'a.bin', '..', '', 7,
                                   'a\\..\\b.safetensors', 'link.safetensors'])
def test_an_index_does_not_lead_out_of_its_folder(place, tmp_path):
  folder = tmp_path / 'model'
  folder.mkdir()
  write_tensors(tmp_path, tensors())
  (tmp_path / SINGLE).rename(tmp_path / 'secret.safetensors')
  (folder / 'link.safetensors').symlink_to(tmp_path / 'secret.safetensors')
  index(folder, {each.name: place for each in tensors()})
  with pytest.raises(DataError) as caught:
    open_tensors(folder)
  assert caught.value.id == 'weights.index'


def test_a_hub_s_links_into_its_own_blobs_are_followed(tmp_path):
  blobs, folder = tmp_path / 'blobs', tmp_path / 'snapshots'
  blobs.mkdir(), folder.mkdir()
  write_tensors(blobs, tensors(), 100)
  for path in list(blobs.iterdir()):
    (folder / path.name).symlink_to(path)
  assert open_tensors(folder).keys() == {each.name for each in tensors()}


def test_index_and_files_hold_the_same(tmp_path):
  write_tensors(tmp_path, tensors(), 200)
  places = json.loads((tmp_path / INDEX).read_text())['weight_map']
  for wrong in ({**places, 'more': places['w0']}, {name: place for name, place in places.items() if name != 'w1'}):
    index(tmp_path, wrong)
    with pytest.raises(DataError, match=r'weights\.index'):
      open_tensors(tmp_path)
  index(tmp_path, places | {'w0': 'gone.safetensors'})
  with pytest.raises(DataError, match=r'weights\.missing'):
    open_tensors(tmp_path)


def test_pickles_are_never_loaded(tmp_path):
  (tmp_path / 'pytorch_model.bin').write_bytes(b'\x80\x04.')
  with pytest.raises(DataError, match='convert it to safetensors'):
    open_tensors(tmp_path)


def test_shards_without_their_index_or_their_config_are_told_what_to_fetch(tmp_path):
  write_tensors(tmp_path, tensors(), 100)
  (tmp_path / INDEX).unlink()
  (tmp_path / 'pytorch_model.bin').touch()
  with pytest.raises(DataError, match=rf'fetch their {INDEX} too'):
    open_tensors(tmp_path)
  with pytest.raises(DataError, match=r'(?s)config\.json.*fetch it too'):
    read_config(tmp_path)


@pytest.mark.parametrize('text', ['', '[]', '{', '\xff', '{"a": ' * 100_000])
def test_a_config_that_is_none_is_refused(text, tmp_path):
  (tmp_path / 'config.json').write_text(text, encoding='latin1')
  with pytest.raises(DataError, match=r'weights\.bad-json'):
    read_config(tmp_path)


def mutated(data: bytes, rng: random.Random) -> bytes:
  """The file with some bytes of its header changed, or cut off, or its length another."""
  length = int.from_bytes(data[:8], 'little')
  kind = rng.randrange(4)
  if kind == 0:
    return rng.choice([0, 1, length - 1, length + 1, 2**31, 2**63, 2**64 - 1]).to_bytes(8, 'little') + data[8:]
  if kind == 1:
    return data[:rng.randrange(len(data))]
  if kind == 2:
    return data + bytes(rng.randrange(1, 99))
  changed = bytearray(data)
  for _ in range(rng.randint(1, 4)):
    changed[8 + rng.randrange(length)] = rng.choice(b'0123456789[]{}",:-eFIBU \xff\x00')
  return bytes(changed)


def fuzzed(folder, count: int) -> tuple[int, int]:
  """How many mutants were refused and how many read; nothing else happens, and nothing beyond the file is allocated."""
  write_tensors(folder, tensors())
  data, path = (folder / SINGLE).read_bytes(), folder / 'm.safetensors'
  rng = random.Random(int(os.environ.get('ATHANOR_SEED', 0)))
  refused = read = 0
  tracemalloc.start()
  for _ in range(count):
    path.write_bytes(mutated(data, rng))
    tracemalloc.reset_peak()
    try:
      for tensor in open_safetensors(path).values():
        tensor.whole()
      read += 1
    except DataError as error:
      assert str(path) in str(error)
      refused += 1
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
  tracemalloc.stop()
  return refused, read


def test_mutated_headers_are_read_or_refused(tmp_path):
  refused, read = fuzzed(tmp_path, 300)
  assert refused > 200 and read > 0


@pytest.mark.campaign
def test_many_mutated_headers(tmp_path):
  refused, read = fuzzed(tmp_path, 20_000)
  print(f'\n{refused} mutants refused, {read} read')
