"""GGUF files: what llama.cpp's package writes is read to the bit, and what is written here is read again."""

import numpy as np
import pytest

from model.errors import ConfigError, DataError
from model.weights.blocks import FORMATS, quantize_q8_0
from model.weights.gguf import open_gguf
from model.weights.gguf_writing import write_gguf, writing_of
from tests.model.weights.gguf_files import HERE, METADATA, PEER, arrays, peak, tensor, written

NUMBERS = ('UINT8', 'INT8', 'UINT16', 'INT16', 'UINT32', 'INT32', 'UINT64', 'INT64', 'FLOAT32', 'FLOAT64')


@pytest.fixture(scope='module')
def expected():
  with np.load(HERE / 'peer.npz') as held:
    return dict(held)


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
