"""The seal: it passes what was sealed, names what was damaged, and is never believed when it was damaged itself."""

import hashlib
import json
import shutil
import time

import numpy as np
import pytest

from model.errors import CheckpointError
from train.saving import integrity
from train.saving.integrity import SEAL, Damaged
from train.saving.leaves import Leaf

LEAVES = {'w': Leaf((2, 3), 'float32'), 'none': Leaf((0,), 'int8')}


@pytest.fixture
def folder(tmp_path):
  step = tmp_path / '7'
  (step / 'state' / 'w').mkdir(parents=True)
  (step / 'host.json').write_text('{"source": 3}')
  (step / 'state' / 'w' / '0.0').write_bytes(bytes(range(200)))
  integrity.write(step, 7, LEAVES, {'w': 123})
  return step


def test_what_was_sealed_passes(folder):
  seal = integrity.read(folder)
  integrity.verify(folder, seal)
  assert seal.step == 7 and seal.leaves == LEAVES and seal.digests == {'w': 123} and seal.bytes == 213


def test_files_are_hashed_as_they_come(tmp_path):
  """Those with a name of OCDBT's, which they have when they are whole; the folders above are renamed meanwhile."""
  content = {f'{index:032x}': bytes([index]) * 1000 for index in range(20)}
  data = tmp_path / '7.saving' / 'state.tmp' / 'd'
  data.mkdir(parents=True)
  with integrity.ahead(tmp_path) as known:
    (data / f'{99:032x}.__lock').write_bytes(b'half')
    for name, value in content.items():
      (data / f'{name}.__lock').write_bytes(value)
      (data / f'{name}.__lock').rename(data / name)
    data.parent.rename(data.parent.with_name('state'))
    while len(known) < len(content):
      time.sleep(0.01)
  assert known == {name: (1000, hashlib.sha256(value).hexdigest()) for name, value in content.items()}


def test_a_hash_of_another_size_is_not_believed(folder):
  integrity.write(folder, 7, LEAVES, {'w': 123}, {'0.0': (199, 'of what was there before')})
  integrity.verify(folder, integrity.read(folder))


def test_all_is_forced_to_the_disk(folder, monkeypatch):
  """Each file and each folder, the seal's own last: a name is lost with its folder."""
  forced = []
  monkeypatch.setattr(integrity, 'sync', forced.append)
  integrity.write(folder, 7, LEAVES, {'w': 123})
  assert set(forced) == {path for path in folder.rglob('*') if path.name != SEAL} | {folder} and forced[-1] == folder


def flip(path):
  data = bytearray(path.read_bytes())
  data[100 % len(data)] ^= 4
  path.write_bytes(data)


DAMAGE = {'flip': flip, 'empty': lambda path: path.write_bytes(b''), 'delete': lambda path: path.unlink(),
          'append': lambda path: path.write_bytes(path.read_bytes() + b'x'),
          'truncate': lambda path: path.write_bytes(path.read_bytes()[:-1]),
          'zero': lambda path: path.write_bytes(bytes(len(path.read_bytes()))),
          'a folder': lambda path: (path.unlink(), path.mkdir())}


@pytest.mark.parametrize('file', ['host.json', 'state/w/0.0'])
@pytest.mark.parametrize('damage', DAMAGE)
def test_a_damaged_file_is_named(folder, file, damage):
  DAMAGE[damage](folder / file)
  with pytest.raises(Damaged, match=file):
    integrity.verify(folder, integrity.read(folder))


def test_no_flipped_bit_of_the_seal_is_believed(folder):
  good, sealed = integrity.read(folder), (folder / SEAL).read_bytes()
  refused = 0
  for place in range(len(sealed)):
    data = bytearray(sealed)
    data[place] ^= 1 << (place % 8)
    (folder / SEAL).write_bytes(data)
    try:
      assert integrity.read(folder) == good       # white space may become other white space
    except Damaged:
      refused += 1
  assert refused > 0.7 * len(sealed)


@pytest.mark.parametrize('content', [b'', b'{', b'null', b'[]', b'{}', b'"x"', b'\xff\xfe', b'[' * 100_000, b'0' * 5000,
                                     b'{"seal": null, "sha256": null}', b'{"seal": {}, "sha256": 1}', None])
def test_no_rubbish_crashes_the_reader(folder, content):
  (folder / SEAL).unlink()
  if content is not None:
    (folder / SEAL).write_bytes(content)
  with pytest.raises(Damaged, match=SEAL):
    integrity.read(folder)


@pytest.mark.parametrize('body', [None, 3, [], {'format': 1}, {'format': 1, 'step': 7, 'files': 3, 'leaves': {}},
                                  {'format': 1, 'step': 7, 'files': {'a': 1}, 'leaves': {}},
                                  {'format': 1, 'step': 7, 'files': {}, 'leaves': {'w': [3, 'f', 1]}}])
def test_no_well_signed_rubbish_crashes_the_reader(folder, body):
  (folder / SEAL).write_text(json.dumps({'seal': body, 'sha256': integrity._own(body)}))
  with pytest.raises(Damaged, match=SEAL):
    integrity.read(folder)


def test_random_bytes_do_not_crash_the_reader(folder):
  rng = np.random.default_rng(0)
  sealed = (folder / SEAL).read_bytes()
  for _ in range(300):
    data = bytearray(sealed)
    for place in rng.integers(len(data), size=rng.integers(1, 20)):
      data[place] = rng.integers(256)
    (folder / SEAL).write_bytes(data[:rng.integers(len(data))])
    with pytest.raises(Damaged):
      integrity.read(folder)


def test_a_copy_under_another_name_is_not_that_step(folder):
  shutil.copytree(folder, folder.with_name('8'))
  with pytest.raises(Damaged, match='named 8 and holds step 7'):
    integrity.read(folder.with_name('8'))


def test_a_newer_format_is_refused_not_taken_for_damage(folder):
  body = json.loads((folder / SEAL).read_text())['seal'] | {'format': 2}
  (folder / SEAL).write_text(json.dumps({'seal': body, 'sha256': integrity._own(body)}))
  with pytest.raises(CheckpointError, match='reads format 1') as refusal:
    integrity.read(folder)
  assert refusal.value.id == 'checkpoint.newer-format'
