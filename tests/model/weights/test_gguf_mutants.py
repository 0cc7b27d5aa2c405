"""GGUF files with random changes are read, or refused by name, and never take more than their bytes."""

import os
import random

import pytest

from model.errors import DataError
from model.weights.gguf import open_gguf
from tests.model.weights.gguf_files import header_of, peak, u32, u64, written


def mutated(data, length, rng):
  """One to three changes within the first `length` bytes."""
  data = bytearray(data)
  for _ in range(rng.choice((1, 1, 2, 3))):
    at = rng.randrange(length)
    match rng.randrange(6):
      case 0:
        data[at] ^= 1 << rng.randrange(8)
      case 1:
        data[at:at + 8] = u64(rng.choice((0, 1, 2**31, 2**32 - 1, 2**40, 2**60, 2**63, 2**64 - 1, rng.randrange(200))))
      case 2:
        data[at:at + 4] = u32(rng.choice((0, 7, 8, 9, 10, 13, 2**31, 2**32 - 1)))
      case 3:
        data[at:at + rng.randrange(1, 20)] = b''
      case 4:
        data[at:at] = rng.randbytes(rng.randrange(1, 20))
      case _:
        begin = rng.randrange(length)
        data[at:at + 24] = data[begin:begin + 24]
  return bytes(data[:rng.randrange(length)] if rng.random() < 0.05 else data)


def trials(path, count):
  """How many mutants were read and how many refused. Raises: what is no DataError, and where one takes more than its bytes."""
  first = int(os.environ.get('ATHANOR_SEED', random.SystemRandom().randrange(10**6)))
  whole, outcomes = written(path).read_bytes(), {'read': 0, 'refused': 0}
  for seed in range(first, first + count):
    data = mutated(whole, header_of(whole), random.Random(seed))
    path.write_bytes(data)
    found = []
    try:
      used = peak(lambda: found.append(open_gguf(path)))      # noqa: B023
    except DataError as error:
      assert str(path) in error.what, f'seed {seed}'
      outcomes['refused'] += 1
      continue
    assert used < len(data), f'seed {seed}: {used:,} bytes for a file of {len(data):,}'
    for each in found[0].tensors.values():
      assert peak(each.whole) < 20 * len(data) and each.whole().shape == each.shape, f'seed {seed}'
    outcomes['read'] += 1
  print(f'\n{count} mutants from seed {first}: {outcomes}')
  return outcomes


@pytest.mark.filterwarnings('ignore::RuntimeWarning')
def test_a_mutant_is_read_or_refused(tmp_path):
  outcomes = trials(tmp_path / 'a.gguf', 300)
  assert outcomes['read'] > 10 and outcomes['refused'] > 100


@pytest.mark.campaign
@pytest.mark.filterwarnings('ignore::RuntimeWarning')
def test_many_mutants_are_read_or_refused(tmp_path):
  outcomes = trials(tmp_path / 'a.gguf', int(os.environ.get('ATHANOR_MUTANTS', 5000)))
  assert outcomes['refused'] > 1000
