"""The ledger keeps every bit, survives a torn line, and notices a replay that is not one."""

import os

import numpy as np
import pytest

from model.errors import DataError, NumericsError, StorageError
from train.ledger import LEDGER, Ledger, compare, lives

HERE = {'packages': {'jax': '1'}, 'mesh': [1, 1]}


def write(folder, losses, environment=HERE, first=1):
  folder.mkdir(exist_ok=True)
  with Ledger(folder, environment) as ledger:
    for step, loss in enumerate(losses, first):
      ledger.write(step, {'loss': loss, 'grad_norm': 2 * loss})
  return folder / LEDGER


@pytest.mark.parametrize('value', [0.1, np.float32(1) / 3, -0.0, 0.0, float('nan'), float('inf'), 5e-324, 1.0])
def test_every_bit_is_kept(tmp_path, value):
  path = write(tmp_path, [value])
  kept = float.fromhex(lives(path)[0].steps[1]['loss'])
  assert np.float64(kept).tobytes() == np.float64(value).tobytes() or (np.isnan(kept) and np.isnan(value))


def test_a_life_goes_on_where_the_last_was_cut_off(tmp_path):
  write(tmp_path, [3.0, 2.0, 1.5])
  path = write(tmp_path, [2.0, 1.5, 1.25], first=2)
  assert [sorted(life.steps) for life in lives(path)] == [[1, 2, 3], [2, 3, 4]]
  assert compare(path, write(tmp_path / 'straight', [3.0, 2.0, 1.5, 1.25])).equal


def test_a_replay_in_other_bits_stops_the_run(tmp_path):
  write(tmp_path, [3.0, 2.0])
  with pytest.raises(NumericsError, match=r'step 2 .*loss was 2 .*and is 2\.00000024') as failure:
    write(tmp_path, [np.nextafter(np.float32(2), np.float32(3))], first=2)
  assert failure.value.id == 'numerics.replay' and '0x1.0000020000000p+1' in str(failure.value)


def test_a_replay_elsewhere_is_only_told(tmp_path, caplog):
  write(tmp_path, [3.0, 2.0, 1.0])
  write(tmp_path, [2.5, 1.5], HERE | {'mesh': [2, 1]}, first=2)
  assert caplog.text.count('done again') == 1 and 'mesh' in caplog.text


@pytest.mark.parametrize('cut', [1, 5, 20])
def test_a_torn_last_line_is_passed_over(tmp_path, cut):
  path = write(tmp_path, [3.0, 2.0])
  path.write_bytes(path.read_bytes()[:-cut])
  assert sorted(lives(path)[0].steps) in ([1], [1, 2])
  write(tmp_path, [2.0, 1.0], first=2)
  assert compare(path, write(tmp_path / 'straight', [3.0, 2.0, 1.0])).equal


@pytest.mark.parametrize('line', [b'{"step": 1}x', b'', b'{}', b'[]', b'\xff', b'{"step": "1", "loss": "0x1p0"}',
                                  b'{"step": 1, "loss": 3}', b'{"step": 1, "loss": "y"}', b'{"life": 3}', b'[' * 9999])
def test_damage_in_the_middle_is_named(tmp_path, line):
  path = write(tmp_path, [3.0, 2.0, 1.0])
  lines = path.read_bytes().split(b'\n')
  lines[2] = line
  path.write_bytes(b'\n'.join(lines))
  if line:                                # an empty line hurts nobody
    with pytest.raises(DataError, match=f'{LEDGER}:3'):
      lives(path)
  else:
    assert sorted(lives(path)[0].steps) == [1, 3]


def test_comparisons_say_where_and_how_far(tmp_path):
  one = write(tmp_path / 'one', [3.0, 2.0, 1.0, 0.5])
  other = write(tmp_path / 'other', [3.0, 2.25, 1.125], HERE | {'packages': {'jax': '2'}})
  found = compare(one, other)
  assert (found.steps, found.alone, found.first, found.largest, found.equal) == (3, (1, 0), 2, 0.25, False)
  assert 'loss was 2 ' in found.told and found.changed == {'packages.jax': ('1', '2')}


def test_nothing_in_common_is_not_equal(tmp_path):
  assert not compare(write(tmp_path / 'one', []), write(tmp_path / 'other', [1.0])).equal


def test_a_ledger_that_is_missing_is_named(tmp_path):
  with pytest.raises(StorageError, match='No such file'):
    compare(tmp_path / 'a', tmp_path / 'b')


def test_a_full_disk_is_told(tmp_path):
  with Ledger(tmp_path, HERE) as ledger:
    os.dup2(os.open('/dev/full', os.O_WRONLY), ledger.handle)
    with pytest.raises(StorageError, match='No space left'):
      ledger.write(1, {'loss': 1.0})
