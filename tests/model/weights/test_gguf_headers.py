"""GGUF headers that lie: none is believed, and nothing is allocated for it."""

import struct

import pytest

from model.errors import DataError
from model.weights import gguf
from model.weights.gguf import open_gguf
from tests.model.weights.gguf_files import PEER, arrays, deep, entry, file, header_of, peak, text, u32, u64, written

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
