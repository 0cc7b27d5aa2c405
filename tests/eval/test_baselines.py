"""The compressors against a dictionary that counts the plain way, and against sums that must be one."""

import gzip
from collections import Counter, defaultdict

import numpy as np
import pytest

from train.eval.baselines import Ngrams, gzip_bits_per_byte

TRAIN = [b'abracadabra abracadabra', b'the cat sat on the mat', b'a', bytes([0, 0, 255, 255, 0, 0, 254])]
HELD = [b'the abra cat sat', b'', b'zzz', bytes([0, 0, 0, 255]), b'a']


class Dictionary:
  """Witten-Bell as the formula says it, with a dictionary for the counts."""

  def __init__(self, documents, longest):
    self.counts = defaultdict(Counter)
    for document in documents:
      for i, byte in enumerate(document):
        for n in range(min(i, longest - 1) + 1):
          self.counts[document[i - n:i]][byte] += 1

  def probability(self, context, byte):
    below = self.probability(context[1:], byte) if context else 1 / 256
    seen = self.counts.get(context)
    if not seen:
      return below
    return (seen[byte] + len(seen) * below) / (sum(seen.values()) + len(seen))


@pytest.mark.parametrize('longest', [1, 3, 7])
def test_every_order_equals_the_dictionary(longest):
  ours = Ngrams.fit(TRAIN, longest).probabilities(HELD)
  plain = Dictionary(TRAIN, longest)
  for order in range(1, longest + 1):
    expected = [plain.probability(document[max(0, i - order + 1):i], byte)
                for document in HELD for i, byte in enumerate(document)]
    np.testing.assert_allclose(ours[order - 1], expected, rtol=1e-12)


@pytest.mark.parametrize('context', [b'', b'a', b'abra', b'the ca', b'never seen', bytes([0, 0]), bytes([255] * 6)])
def test_the_probabilities_of_all_bytes_sum_to_one(context):
  model = Ngrams.fit(TRAIN)
  last = np.stack([model.probabilities([context + bytes([byte])])[:, -1] for byte in range(256)])
  np.testing.assert_allclose(last.sum(axis=0), 1.0, rtol=1e-12)
  assert (last > 0).all()


def test_a_model_that_saw_nothing_gives_every_byte_eight_bits():
  assert Ngrams.fit([]).bits_per_byte([b'anything']) == dict.fromkeys(range(1, 8), 8.0)


def test_more_context_helps_on_text_of_the_same_kind():
  text = [b'the cat sat on the mat and the dog sat on the log. ' * 20]
  bits = Ngrams.fit(text).bits_per_byte([b'the dog sat on the mat'])
  assert bits[1] > bits[3] > bits[5] > bits[7]


def test_gzip_is_one_stream_over_all_documents():
  assert gzip_bits_per_byte(HELD) == 8 * len(gzip.compress(b''.join(HELD), 9)) / len(b''.join(HELD))
  assert gzip_bits_per_byte([b'same words again '] * 100) < 0.5 < gzip_bits_per_byte([b'same words again '])
