"""Perplexity with known answers, and sums that do not care how a set was cut."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.config import Attention, Decoder, Gated
from model.decoder import build
from model.sharding import unbox
from model.tokenizer import SentencePiece, train_bpe
from train.data.document import Document
from train.eval.perplexity import Score, Scorer, by_source, lots, score_documents, token_nll
from train.objectives import NextToken, shift

TEXTS = ['the cat sat on the mat, and the dog sat on the log', 'a', '', 'émigré — naïve 🙂', 'the dog ' * 12]
DOCUMENTS = [Document(text, 'ab'[i % 2], str(i)) for i, text in enumerate(TEXTS)]


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory):
  path = tmp_path_factory.mktemp('tokenizer') / 'tokenizer.model'
  path.write_bytes(train_bpe(TEXTS, 300))
  return SentencePiece(path)


@pytest.fixture(scope='module')
def model():
  return build(Decoder(vocab=300, width=16, layers=1, attention=Attention(2, 1, 8), mlp=Gated(32)))


@pytest.fixture(scope='module')
def params(model):
  return jax.jit(lambda key: unbox(model.init(key)))(jax.random.key(0))


def test_units():
  byte = Score(nll=8 * math.log(2) * 5, tokens=2, bytes=5)
  assert byte.bits_per_byte == pytest.approx(8.0)
  assert byte.loss == pytest.approx(20 * math.log(2)) and byte.perplexity == pytest.approx(2.0**20)
  assert byte + Score(1.0, 1, 1) == Score(byte.nll + 1.0, 3, 6)
  assert math.isnan(Score().loss) and math.isnan(Score().bits_per_byte) and math.isnan(Score().perplexity)
  assert Score(1e6, 1, 1).perplexity == math.inf


def test_a_set_is_not_the_mean_of_its_parts():
  easy, hard = Score(nll=1.0, tokens=99, bytes=300), Score(nll=50.0, tokens=1, bytes=2)
  assert (easy + hard).perplexity == pytest.approx(math.exp(51 / 100))
  assert (easy + hard).perplexity < (easy.perplexity + hard.perplexity) / 2


def test_a_model_that_knows_nothing_has_the_vocabulary_as_perplexity(model, params, tokenizer):
  nothing = jax.tree.map(jnp.zeros_like, params)
  scores = score_documents(model, nothing, tokenizer, DOCUMENTS, length=16, stride=8, batch=4)
  assert all(score.perplexity == pytest.approx(300, rel=1e-5) for score in scores)
  whole = sum(scores, Score())
  assert whole.bits_per_byte == pytest.approx(whole.tokens * math.log2(300) / sum(len(text.encode()) for text in TEXTS))


def test_each_token_and_the_end_are_scored_once(model, params, tokenizer):
  scores = score_documents(model, params, tokenizer, DOCUMENTS, length=8, stride=3, batch=4)
  assert [score.tokens for score in scores] == [len(tokenizer.encode(text)) + 1 for text in TEXTS]
  assert [score.bytes for score in scores] == [len(text.encode()) for text in TEXTS]


def encoded(tokenizer):
  return [np.array([tokenizer.bos, *tokenizer.encode(text), tokenizer.eos]) for text in TEXTS]


@pytest.mark.parametrize('batch', [1, 5])
def test_neither_batch_nor_packing_changes_a_document(model, params, tokenizer, batch):
  together = score_documents(model, params, tokenizer, DOCUMENTS, length=128, stride=128, batch=batch)
  alone = np.zeros((len(TEXTS), 129), np.int32)
  for row, ids in zip(alone, encoded(tokenizer)):
    row[:len(ids)] = ids
  x_BLD = jax.jit(model.hidden)(params, alone[:, :-1]).x_BLD
  logp_BL = np.asarray(model.logp(params, x_BLD, alone[:, 1:]))
  for logp_L, ids, score in zip(logp_BL, encoded(tokenizer), together):
    assert score.nll == pytest.approx(-float(logp_L[:len(ids) - 1].sum()), rel=1e-5)


def test_more_context_is_seen_where_windows_overlap(model, params, tokenizer):
  def nll(length, stride):
    return score_documents(model, params, tokenizer, DOCUMENTS[:1], length=length, stride=stride, batch=2)[0].nll

  assert nll(8, 1) != pytest.approx(nll(8, 8), rel=1e-6)
  assert nll(128, 1) == pytest.approx(nll(128, 128), rel=1e-6)


def rows(tokenizer, length=12):
  """The documents end to end, `length + 1` tokens a row, the last of a row read again as the first of the next."""
  tokens = np.concatenate(encoded(tokenizer))
  segments = np.repeat(np.arange(len(TEXTS)) + 1, [len(ids) for ids in encoded(tokenizer)])
  count = -(-(len(tokens) - 1) // length)
  places = np.arange(count)[:, None] * length + np.arange(length + 1)
  return {name: np.pad(column, (0, length + 1))[places].astype(np.int32)
          for name, column in (('tokens', tokens), ('segments', segments))}


def test_the_scorer_is_the_training_loss_and_does_not_see_the_padded_batch(model, params, tokenizer):
  columns = rows(tokenizer)
  whole = Scorer(model, NextToken(z_loss=0.1), columns, len(columns['tokens']), tokenizer.bytes_of)(params)
  uneven = Scorer(model, NextToken(), columns, 4, tokenizer.bytes_of)(params)
  assert len(columns['tokens']) % 4
  loss = jax.jit(NextToken()(model))(params, {}, columns, jax.random.key(0))
  assert whole.nll == pytest.approx(float(loss.objective.total), rel=1e-5) == pytest.approx(uneven.nll, rel=1e-5)
  assert whole.tokens == uneven.tokens == int(loss.objective.weight)
  assert whole.bytes == uneven.bytes == sum(len(text.encode()) for text in TEXTS)


def test_token_nll_adds_up_to_the_model_s_own_sum(model, params, tokenizer):
  lot = next(lots(rows(tokenizer), 4))
  nll_BL, weights_BL = token_nll(model)(params, lot)
  row = shift(lot)
  x_BLD = jax.jit(model.hidden)(params, row.inputs_BL, row.segments_BL).x_BLD
  head = model.nll(params, x_BLD, row.targets_BL, row.weights_BL)
  assert float(nll_BL.sum()) == pytest.approx(float(head.nll), rel=1e-5)
  np.testing.assert_array_equal(weights_BL, row.weights_BL)


def test_lots_have_one_shape_and_the_filling_weighs_nothing():
  columns = {'tokens': np.ones((7, 3)), 'segments': np.ones((7, 3)), 'record': np.arange(7)}
  made = list(lots(columns, 3))
  assert [lot['tokens'].shape for lot in made] == [(3, 3)] * 3 and [lot['record'].shape for lot in made] == [(3,)] * 3
  np.testing.assert_array_equal(np.concatenate([lot['segments'] for lot in made])[:7], columns['segments'])
  assert not made[-1]['segments'][1:].any()


def test_sources_add_up():
  scores = [Score(float(i), i, 2 * i) for i in range(5)]
  sums = by_source(DOCUMENTS, scores)
  assert sums == {'a': Score(6.0, 6, 12), 'b': Score(4.0, 4, 8)}
