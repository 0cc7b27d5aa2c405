"""Sentence embeddings: what an embedding is, and that company, order, padding and length of the rows change nothing."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, trainers

from model.config import Learned
from model.embedding import LEAST, Embedder, embed
from model.errors import ConfigError
from model.tokenizer_json import Specials, TokenizerJson
from tests.model.variants import ENCODERS, made, tokens

CONFIG = replace(ENCODERS['bert'], vocab=160, head=None)
TEXTS = ['A cat.', 'The quick brown fox jumps over the lazy dog', '', 'cats and dogs ' * 9, 'a CAT.', 'dog']


@cache
def embedded():
  """`embed` with one program for each shape of rows."""
  model, params = made(CONFIG)
  return jax.jit(lambda tokens_BL, segments_BL: embed(model, params, tokens_BL, segments_BL))


@cache
def words() -> TokenizerJson:
  """WordPiece, which loses capitals and blanks."""
  tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token='[UNK]'))
  tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
  names = ['[PAD]', '[CLS]', '[SEP]', '[UNK]']
  tokenizer.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=120, special_tokens=names, show_progress=False))
  return TokenizerJson(tokenizer.to_str().encode(), Specials('[CLS]', '[SEP]', '[PAD]'))


def test_an_embedding_is_the_direction_of_the_mean_of_real_tokens():
  model, params = made(CONFIG)
  segments_BL = jnp.array([[1] * 7 + [0] * 5, [1] * 12])
  found, hidden = embedded()(tokens(), segments_BL), jax.jit(lambda tokens_BL: model.hidden(params, tokens_BL).x_BLD)
  for i, length in enumerate((7, 12)):
    mean_D = np.asarray(hidden(tokens()[i:i + 1, :length])[0], np.float64).mean(0)
    np.testing.assert_allclose(found[i], mean_D / np.linalg.norm(mean_D), atol=1e-5)
  assert np.abs(found[0] - embedded()(tokens(), jnp.ones_like(segments_BL))[0]).max() > 1e-2
  assert not np.asarray(embedded()(tokens(), jnp.zeros_like(segments_BL))).any()


def test_a_text_is_embedded_as_it_would_be_alone():
  model, params = made(CONFIG)
  embedder = Embedder(model, params, words(), length=32, batch=4)
  together = embedder(TEXTS)
  assert together.shape == (6, 16) and not words().lossless
  np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
  for i, text in enumerate(TEXTS):
    row = jnp.array([embedder.ids(text)])
    np.testing.assert_allclose(together[i], embedded()(row, jnp.ones_like(row))[0], atol=1e-5)
  np.testing.assert_allclose(embedder(TEXTS[::-1])[::-1], together, atol=1e-5)
  np.testing.assert_allclose(together[0], together[4], atol=1e-6)
  assert (together @ together.T - np.eye(6))[[0, 0], [1, 5]].max() < 0.999
  assert embedder([]).shape == (0, 16)


def test_long_texts_are_cut_and_framed_and_few_programs_are_compiled():
  model, params = made(CONFIG)
  embedder = Embedder(model, params, words(), length=24, batch=2)
  ids = embedder.ids(TEXTS[3])
  assert len(ids) == 24 and (ids[0], ids[-1]) == (words().bos, words().eos)
  assert ids[1:-1] == words().encode(TEXTS[3])[:22] and embedder.ids('') == [words().bos, words().eos]
  lengths = set()
  embedder._embed = lambda params, tokens_BL, segments_BL: lengths.add(tokens_BL.shape) or jnp.zeros((2, 16))
  embedder([*TEXTS, 'a', 'dog dog'])
  assert lengths == {(2, LEAST), (2, 24)}


def test_a_model_without_so_many_positions_is_refused():
  model, params = made(CONFIG)
  with pytest.raises(ConfigError, match='at most 32 tokens'):
    Embedder(model, params, words(), length=33)
  model, params = made(replace(CONFIG, positions=Learned(32, first=2)))
  with pytest.raises(ConfigError, match='at most 30 tokens'):
    Embedder(model, params, words(), length=32)
