"""GGUF beside llama.cpp's own package: it reads what is written here, and random blocks come out alike to the bit.

It runs in an environment of its own (`make peers`), and the tests are skipped by that name where it is absent.
"""

import numpy as np

from model.weights.blocks import FORMATS
from tests.model.weights.gguf_files import METADATA, arrays, written
from tests.peers import of

KINDS = ('F32', 'F16', 'Q8_0')


def test_a_peer_reads_what_is_written(tmp_path):
  paths = {kind: written(tmp_path / f'{kind}.gguf', kind, METADATA | {'general.alignment': 256}) for kind in KINDS}
  found = of.told('trl', 'gguf_reads.py', tmp_path, paths=np.array(list(map(str, paths.values()))), **arrays())
  for kind, path in paths.items():
    for key, value in METADATA.items():
      np.testing.assert_array_equal(found[f'{kind}/value/{key}'], np.float32(value) if isinstance(value, float) else value)
    assert found[f'{kind}/types/llama.block_count'].tolist() == ['UINT32']
    assert found[f'{kind}/types/tokenizer.ggml.scores'].tolist() == ['ARRAY', 'FLOAT32']
    assert found[f'{kind}/tensors'].tolist() == list(arrays())
    end = int(found[f'{kind}/begin'])
    for name, x in arrays().items():
      begin, size = map(int, found[f'{kind}/place/{name}'])
      assert tuple(found[f'{kind}/shape/{name}']) == x.shape and begin % 256 == 0
      assert begin == end                                    # llama.cpp refuses gaps
      end += size + -size % 256
      np.testing.assert_array_equal(found[f'{kind}/read/{name}'], found[f'{kind}/wanted/{name}'], strict=True)
    assert end == path.stat().st_size                        # and a last tensor that is not padded
    types = {str(found[f'{kind}/type/{name}']) for name in arrays()}
    assert types == {'F32', 'F16', kind} - ({'F16'} if kind == 'F32' else set())


def test_random_blocks_are_a_peers(tmp_path):
  """Whatever the bits, infinite scales among them; of what is no number, only that it is none."""
  rng = np.random.default_rng(0)
  blocks = {format.name: rng.integers(0, 256, (20_000 if format.size > 1 else 1_000_000, format.block.itemsize), np.uint8)
            for format in FORMATS.values()}
  found = of.told('trl', 'gguf_blocks.py', tmp_path, **blocks)
  for format in FORMATS.values():
    with np.errstate(all='ignore'):
      ours = format.read(blocks[format.name].view(format.block)[:, 0])
    theirs = found[format.name].reshape(ours.shape)
    assert np.isnan(theirs).any()
    assert np.where(np.isnan(ours), 0, ours).tobytes() == np.where(np.isnan(theirs), 0, theirs).tobytes()
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
