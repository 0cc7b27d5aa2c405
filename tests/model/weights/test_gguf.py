"""GGUF files: what llama.cpp's package writes is read to the bit, it reads what is written here, and no header is believed."""

import os
import random
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from model.errors import ConfigError, DataError
from model.weights import gguf
from model.weights.blocks import FORMATS, quantize_q8_0
from model.weights.gguf import open_gguf
from model.weights.gguf_writing import write_gguf, writing_of
from model.weights.tensor import Tensor

HERE = Path(__file__).parent
PEER = HERE / 'peer.gguf'                    # by the gguf package: see peer.py
NUMBERS = ('UINT8', 'INT8', 'UINT16', 'INT16', 'UINT32', 'INT32', 'UINT64', 'INT64', 'FLOAT32', 'FLOAT64')
METADATA = {'general.architecture': 'llama', 'llama.block_count': 2, 'llama.rope.freq_base': 1e4, 'add_bos_token': True,
            'tokenizer.ggml.tokens': ['<s>', 'Ġthe', '', '▁'], 'tokenizer.ggml.token_type': np.array([3, 1, 1, 1], np.int32),
            'tokenizer.ggml.scores': [0.0, -1.5], 'big': np.uint64(2**40), 'none': [], 'flags': [True, False], 'few': [7, 8]}


@pytest.fixture(scope='module')
def expected():
  with np.load(HERE / 'peer.npz') as held:
    return dict(held)


def tensor(name, x):
  return Tensor(name, x.shape, x.dtype, lambda slices: x[slices])


def arrays():
  """A vector, matrices that blocks divide and do not, three dimensions, and one that makes a file larger than its header."""
  rng = np.random.default_rng(0)
  shapes = {'norm': (40,), 'matrix': (7, 96), 'odd': (5, 33), 'experts': (2, 3, 64), 'large': (96, 512)}
  return {name: rng.normal(0, 0.02, shape).astype(np.float32) for name, shape in shapes.items()}


def written(path, kind='Q8_0', metadata=METADATA):
  write_gguf(path, metadata, [tensor(name, x) for name, x in arrays().items()], kind)
  return path


def test_every_type_of_value_of_a_peers_file_is_read():
  metadata = open_gguf(PEER).metadata
  for number, name in enumerate(NUMBERS):
    assert metadata[name] == number + 100 and type(metadata[name]) is (float if name.startswith('FLOAT') else int)
    assert metadata[f'{name}s'].tolist() == [number, number + 1] and metadata[f'{name}s'].dtype == name.lower()
  assert metadata['BOOL'] is True and metadata['BOOLs'].tolist() == [True, False]
  assert metadata['STRING'] == 'Ġ ▁ é' and metadata['STRINGs'] == ['', 'Ġthe', '▁']
  assert [inner.tolist() for inner in metadata['nested']] == [[1, 2], [3]]
  assert metadata['general.alignment'] == 64


@pytest.mark.parametrize('name', [format.name for format in FORMATS.values()])
def test_every_type_of_tensor_is_a_peers_to_the_bit(name, expected):
  found = open_gguf(PEER).tensors[name]
  assert found.shape == expected[name].shape and found.whole().dtype == np.float32 == found.dtype
  assert found.whole().tobytes() == expected[name].tobytes()


@pytest.mark.parametrize('slices', [
  (slice(1, 2),), (slice(0, 2), slice(32, 64)), (slice(None), slice(3, 50)), (slice(1), slice(-9, None)),
  (slice(1, 1),), (slice(None), slice(9, 9)), (slice(None), slice(50, 3))])
def test_a_slice_is_a_slice_of_the_whole(slices, expected):
  for name, found in open_gguf(PEER).tensors.items():
    part = found.read(slices)
    np.testing.assert_array_equal(part, expected[name][slices], strict=True)


def test_a_row_costs_a_row(tmp_path):
  """Rows that are not asked for are not dequantised: two of 4,000 take no memory to speak of."""
  x = np.linspace(-1, 1, 4000 * 512, dtype=np.float32).reshape(4000, 512)
  write_gguf(tmp_path / 'a.gguf', {}, [tensor('x', x)], 'Q8_0')
  found = open_gguf(tmp_path / 'a.gguf').tensors['x']
  np.testing.assert_allclose(found.read((slice(3000, 3002),)), x[3000:3002], atol=0.6 / 127)
  assert peak(lambda: found.read((slice(3000, 3002),))) < 100_000 < x.nbytes < peak(found.whole)


def test_q8_0_is_a_peers_to_the_bit(expected):
  assert quantize_q8_0(expected['given']).tobytes() == expected['quantized'].tobytes()


@pytest.mark.parametrize('kind, within', [('F32', 0), ('F16', 2**-11), ('Q8_0', 0.6 / 127)])
def test_what_is_written_is_read(kind, within, tmp_path):
  found = open_gguf(written(tmp_path / 'a.gguf', kind))
  assert list(found.metadata) == list(METADATA) and list(tmp_path.iterdir()) == [tmp_path / 'a.gguf']
  for key, value in METADATA.items():
    np.testing.assert_array_equal(found.metadata[key], np.float32(value) if isinstance(value, float) else value)
  assert list(found.tensors) == list(arrays())
  for name, x in arrays().items():
    assert found.tensors[name].shape == x.shape
    np.testing.assert_allclose(found.tensors[name].whole(), x, rtol=0, atol=within * np.abs(x).max())
  np.testing.assert_array_equal(found.tensors['norm'].whole(), arrays()['norm'])
  assert writing_of((5, 33), 'Q8_0').format.name == 'F16' and writing_of((2, 3, 64), 'Q8_0').format.name == 'Q8_0'


def test_a_peer_reads_what_is_written(tmp_path):
  peer = pytest.importorskip('gguf')
  for kind in ('F32', 'F16', 'Q8_0'):
    path = written(tmp_path / 'a.gguf', kind, METADATA | {'general.alignment': 256})
    reader = peer.GGUFReader(path)
    for key, value in METADATA.items():
      np.testing.assert_array_equal(reader.get_field(key).contents(), np.float32(value) if isinstance(value, float) else value)
    assert reader.get_field('llama.block_count').types == [peer.GGUFValueType.UINT32]
    assert reader.get_field('tokenizer.ggml.scores').types == [peer.GGUFValueType.ARRAY, peer.GGUFValueType.FLOAT32]
    end = reader.data_offset
    for found, (name, x) in zip(reader.tensors, arrays().items(), strict=True):
      assert found.name == name and tuple(found.shape[::-1]) == x.shape and found.data_offset % 256 == 0
      assert found.data_offset == end                        # llama.cpp refuses gaps
      end += found.n_bytes + -found.n_bytes % 256
      assert found.data.tobytes() == peer.quants.quantize(x, found.tensor_type).tobytes()
    assert end == path.stat().st_size                        # and a last tensor that is not padded
    assert {found.tensor_type.name for found in reader.tensors} == {'F32', 'F16', kind} - ({'F16'} if kind == 'F32' else set())


def test_random_blocks_are_a_peers():
  """Whatever the bits, infinite scales among them; of what is no number, only that it is none."""
  peer = pytest.importorskip('gguf')
  rng = np.random.default_rng(0)
  for format in FORMATS.values():
    block = rng.integers(0, 256, (20_000 if format.size > 1 else 1_000_000, format.block.itemsize), np.uint8)
    with np.errstate(all='ignore'):
      ours = format.read(block.view(format.block)[:, 0])
      theirs = peer.quants.dequantize(block, peer.GGMLQuantizationType[format.name]).reshape(ours.shape)
    assert np.isnan(theirs).any()
    assert np.where(np.isnan(ours), 0, ours).tobytes() == np.where(np.isnan(theirs), 0, theirs).tobytes()
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))


def test_numbers_that_a_type_does_not_hold_are_refused(tmp_path):
  for value, kind, do in ((1e5, 'F16', 'write F32'), (1e7, 'Q8_0', 'write F32'), (np.nan, 'F32', 'checkpoint'),
                          (-np.inf, 'F32', 'checkpoint')):
    x = np.zeros((2, 32), np.float32)
    x[1, 3] = value
    with pytest.raises(DataError, match=f"tensor 'x' holds .*(?s:.*){do}"):
      write_gguf(tmp_path / 'a.gguf', {}, [tensor('x', x)], kind)
  with pytest.raises(ConfigError, match='Q4_0'):
    write_gguf(tmp_path / 'a.gguf', {}, [], 'Q4_0')
  assert not list(tmp_path.iterdir())


# headers that lie, made byte by byte

def u32(*numbers):
  return struct.pack(f'<{len(numbers)}I', *numbers)


def u64(*numbers):
  return struct.pack(f'<{len(numbers)}Q', *numbers)


def text(data):
  return u64(len(data)) + data


def entry(name=b'x', shape=(32,), code=0, begin=0):
  return text(name) + u32(len(shape)) + u64(*shape) + u32(code) + u64(begin)


def file(pairs=(), tensors=(), data=bytes(128), counts=None):
  """Each of `pairs` is a key, a type and bytes."""
  header = b'GGUF' + u32(3) + u64(*(counts or (len(tensors), len(pairs))))
  header += b''.join(text(key) + u32(code) + value for key, code, value in pairs) + b''.join(tensors)
  return header + bytes(-len(header) % 32) + data


def deep(depth):
  return u32(9) + u64(1) + deep(depth - 1) if depth else u32(0) + u64(1) + b'\7'


ALIGNMENT = b'general.alignment'
LIES = {
  'a string of 2^60 bytes': (file([(b'k', 8, u64(2**60))]), r"metadata 'k': 1,152,921,504,606,846,976"),
  'a key of 2^60 bytes': (file(counts=(0, 1))[:24] + u64(2**60, 0, 0), 'key 0: 1,152,921,504,606,846,976'),
  'an array of 2^40 numbers': (file([(b'k', 9, u32(4) + u64(2**40))]), "metadata 'k': 1,099,511,627,776 of 4"),
  'an array of 2^64 - 1 strings': (file([(b'k', 9, u32(8) + u64(2**64 - 1))]), "metadata 'k': 18,446,744,073,709,551,615 of 8"),
  '2^50 tensors': (file(counts=(2**50, 0)), 'tensors: 1,125,899,906,842,624'),
  '2^50 keys': (file(counts=(0, 2**50)), 'metadata: 1,125,899,906,842,624'),
  'sizes whose product is 2^64': (file(tensors=[entry(shape=(2**32, 2**32))]), "tensor 'x': F32 .*73,786,976,294,838,206,464"),
  'more numbers than bytes': (file(tensors=[entry(shape=(33,))]), "tensor 'x': F32 .* 132 bytes"),
  'a place beyond the end': (file(tensors=[entry(begin=2**63)]), "tensor 'x': F32 .* from byte 9,223,372,036,854,775,"),
  'a place that is not aligned': (file(tensors=[entry(shape=(4,), begin=8)]), "tensor 'x': it begins at 8"),
  'overlap': (file(tensors=[entry(b'x'), entry(b'y', (8,), begin=96)]), "tensor 'y' begins at 96"),
  'a name twice': (file(tensors=[entry(shape=(8,)), entry(shape=(8,), begin=32)]), "tensor 'x'\n.*twice"),
  'a key twice': (file([(b'k', 0, b'\1')] * 2), "metadata 'k'\n.*twice"),
  'an unknown type of tensor': (file(tensors=[entry(code=99)]), "tensor 'x': type 99\n.*Q4_K"),
  'a type that is not read': (file(tensors=[entry(code=13)]), "tensor 'x': type 13\n.*Q4_K"),
  'an unknown type of value': (file([(b'k', 13, b'')]), "metadata 'k': type 13"),
  'an unknown type in an empty array': (file([(b'k', 9, u32(77) + u64(0))]), "metadata 'k': type 77"),
  'arrays 4 deep': (file([(b'k', 9, deep(3))]), 'more than 3 deep'),
  'arrays 1,000 deep': (file([(b'k', 9, (u32(9) + u64(1)) * 1000)]), 'more than 3 deep'),
  'neither true nor false': (file([(b'k', 7, b'\2')]), "metadata 'k'\n.*true or false"),
  'a string that is no UTF-8': (file([(b'k', 8, text(b'ab\xff'))]), "metadata 'k'\n.*UTF-8"),
  'a key that is no UTF-8': (file([(b'\xc3', 0, b'\1')]), 'key 0\n.*UTF-8'),
  'a name that is no UTF-8': (file(tensors=[entry(b'\x80')]), 'name of tensor 0\n.*UTF-8'),
  'no dimension': (file(tensors=[entry(shape=())] * 2), '0 dimensions'),
  '2^32 - 1 dimensions': (file(tensors=[text(b'x') + u32(2**32 - 1)]), '4294967295 dimensions'),
  'a size of 0': (file(tensors=[entry(shape=(0, 2**62))]), "tensor 'x': shape"),
  'rows that blocks do not divide': (file(tensors=[entry(shape=(33,), code=8)]), 'Q8_0 have a multiple of 32'),
  'alignment 0': (file([(ALIGNMENT, 4, u32(0))]), 'power of two'),
  'alignment 48': (file([(ALIGNMENT, 4, u32(48))]), 'power of two'),
  'alignment of a string': (file([(ALIGNMENT, 8, text(b'32'))]), 'power of two'),
  'an alignment beyond the file': (file([(ALIGNMENT, 4, u32(2**31))], [entry()]), "tensor 'x': F32 .* from byte 2,147,483,648"),
  'other magic': (b'GGML' + bytes(99), 'does not begin with GGUF'),
  'nothing': (b'', 'does not begin with GGUF'),
  'version 1': (b'GGUF' + u32(1) + bytes(99), 'version 1\n.*2 and 3'),
  'big-endian': (b'GGUF' + struct.pack('>I', 3) + bytes(99), 'big-endian'),
  'magic alone': (b'GGUF', 'version: 1 of 4 bytes'),
}


def peak(call):
  """The most bytes that Python and numpy held at once while it ran."""
  tracemalloc.start()
  try:
    call()
    return tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()


@pytest.mark.parametrize('lie', LIES)
def test_a_header_that_lies_is_refused_before_anything_is_allocated(lie, tmp_path):
  data, said = LIES[lie]
  path = tmp_path / 'a.gguf'
  path.write_bytes(data)

  def refused():
    with pytest.raises(DataError, match=f'(?s){said}.*do: ') as error:
      open_gguf(path)
    assert str(path) in error.value.what

  assert peak(refused) < 200_000


def test_the_same_headers_without_lies_are_read(tmp_path):
  """The negative control of the table above."""
  path = tmp_path / 'a.gguf'
  path.write_bytes(file([(b'k', 9, deep(2)), (ALIGNMENT, 4, u32(16))], [entry(shape=(8,), begin=32), entry(b'y', (4, 2), 0)]))
  found = open_gguf(path)
  assert found.metadata['k'][0][0].tolist() == [7]
  assert {name: each.shape for name, each in found.tensors.items()} == {'x': (8,), 'y': (2, 4)}
  path.write_bytes(path.read_bytes().replace(u32(3), u32(2), 1))
  assert open_gguf(path).tensors.keys() == {'x', 'y'}


def header_of(data):
  """Bytes of the header of what `written` writes: the last tensor's name, two sizes, and three numbers more."""
  return data.index(b'large') + len(b'large') + 4 + 2 * 8 + 4 + 8


def test_headers_have_limits(tmp_path, monkeypatch):
  """A header within the file may still be too large for a memory: each of its entries takes more there."""
  path = written(tmp_path / 'a.gguf')
  for name, enough in (('MOST', len(arrays())), ('LONGEST', header_of(path.read_bytes()))):
    with monkeypatch.context() as patch:
      patch.setattr(gguf, name, enough)
      assert open_gguf(path).tensors.keys() == arrays().keys()
      patch.setattr(gguf, name, enough - 1)
      with pytest.raises(DataError, match=f'(more than|at most) {enough - 1:,}'):
        open_gguf(path)


def test_every_cut_is_refused(tmp_path):
  data, path = PEER.read_bytes(), tmp_path / 'a.gguf'
  for length in range(0, len(data) - 128, 7):
    path.write_bytes(data[:length])
    with pytest.raises(DataError):
      open_gguf(path)


def test_a_file_that_is_gone_or_was_cut_since_is_named(tmp_path):
  path = written(tmp_path / 'a.gguf')
  found = open_gguf(path)
  path.write_bytes(path.read_bytes()[:5000])
  with pytest.raises(DataError, match='changed since'):
    found.tensors['large'].whole()
  path.unlink()
  for refused in (found.tensors['norm'].whole, lambda: open_gguf(path), lambda: open_gguf(tmp_path)):
    with pytest.raises(DataError, match=str(tmp_path)):
      refused()


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
