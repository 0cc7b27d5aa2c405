"""TFDS without TensorFlow: documents out to array_record and back, and what is said when that cannot be."""

import sys
import time
from pathlib import Path

import pytest

from model.errors import DataError
from train.data.document import Document
from train.data.tfds_reader import Tfds, builder_of, check_reachable


def documents(count: int, start: int = 0) -> list[Document]:
  return [Document(f'text {i} é\n' * (i % 9 + 1), 'speeches', f'd{i}', {'year': str(1790 + i)})
          for i in range(start, start + count)]


@pytest.fixture
def made(tmp_path) -> Path:
  """A data_dir with the dataset `athanor_text`; its two splits are too large for one block of array_record."""
  from train.data.tfds_builder import write
  write(tmp_path, {'train': lambda: iter(documents(3000)), 'heldout': lambda: iter(documents(10, 3000))})
  return tmp_path


def shard(made: Path) -> Path:
  return next(made.rglob('*train.array_record*'))


def test_documents_come_back(made):
  read = list(Tfds('athanor_text', data_dir=str(made), source='speeches').read())
  assert sorted(read, key=lambda d: int(d.id[1:])) == [Document(d.text, d.source, d.id) for d in documents(3000)]
  assert read == list(Tfds('athanor_text', data_dir=str(made), source='speeches').read()), 'in one order'
  held = {d.text for d in Tfds('athanor_text', 'heldout', str(made)).read()}
  assert held == {d.text for d in documents(10, 3000)}
  assert len(list(Tfds('athanor_text', 'train[:1%]', str(made)).read())) == 30
  assert next(Tfds('athanor_text', data_dir=str(made), field='source').read()).text == 'speeches'
  assert len(Tfds('athanor_text', data_dir=str(made)).files()) == 4
  assert 'tensorflow' not in sys.modules


def test_a_dataset_that_is_there_is_not_written_over(made):
  from train.data.tfds_builder import write
  with pytest.raises(DataError, match='prepared there already'):
    write(made, {'train': lambda: iter(documents(1))})


def damaged(path: Path, damage: str) -> None:
  data = path.read_bytes()
  flipped = bytearray(data)
  flipped[len(data) // 2] ^= 4
  path.write_bytes({'cut off': data[:len(data) // 2], 'empty': b'', 'one bit': bytes(flipped)}[damage])


@pytest.mark.parametrize('damage', ['cut off', 'empty', 'one bit'])
def test_a_damaged_array_record_names_the_record(made, damage):
  damaged(shard(made), damage)
  with pytest.raises(DataError, match=r'athanor_text\[train\] in .*: record \d+'):
    list(Tfds('athanor_text', data_dir=str(made)).read())


def test_a_field_or_split_that_is_not_there(made):
  with pytest.raises(DataError, match="'id', 'meta', 'source', 'text'"):
    list(Tfds('athanor_text', data_dir=str(made), field='body').read())
  with pytest.raises(DataError, match='nosuch'):
    list(Tfds('athanor_text', 'nosuch', str(made)).read())


def test_an_unknown_name_gets_the_nearest_ones(tmp_path):
  with pytest.raises(DataError, match=r'it has .*lm1b') as caught:
    list(Tfds('lm1', data_dir=str(tmp_path)).read())
  assert caught.value.id == 'data.no-such-dataset'


@pytest.mark.parametrize('name', ['c4/en', 'lm1b', 'wikipedia', 'wiki40b/en', 'gsm8k', 'cnn_dailymail', 'pg19'])
def test_built_in_names_are_found(tmp_path, name):
  assert builder_of(name, str(tmp_path)).name == name.split('/')[0]


def test_without_internet_it_fails_in_seconds(tmp_path, monkeypatch):
  for name in ('http_proxy', 'https_proxy', 'HTTP_PROXY', 'HTTPS_PROXY'):
    monkeypatch.setenv(name, 'http://127.0.0.1:9')
  start = time.monotonic()
  with pytest.raises(DataError, match='cannot be reached') as caught:
    list(Tfds('lm1b', data_dir=str(tmp_path)).read())
  assert caught.value.id == 'data.offline' and 'data_dir' in caught.value.do
  assert time.monotonic() - start < 60, 'TFDS alone takes minutes'


def test_a_host_that_takes_the_call_and_says_nothing_is_given_up(monkeypatch):
  import socket
  monkeypatch.setattr('train.data.tfds_reader.WAIT', 1.0)
  for name in ('http_proxy', 'HTTP_PROXY'):
    monkeypatch.delenv(name, raising=False)
  with socket.create_server(('127.0.0.1', 0)) as silent, pytest.raises(DataError, match='cannot be reached'):
    check_reachable('x', f'http://127.0.0.1:{silent.getsockname()[1]}/')
