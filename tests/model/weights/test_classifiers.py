"""Classifiers of BERT and RoBERTa, written for transformers and read from it: the same logits on both sides."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.classifier import Classifier, class_logits
from model.decoder import build
from model.errors import ConfigError, DataError
from model.weights.classifiers import HEADS, export_classifier, open_classifier
from tests.model.test_embedding import words
from tests.model.variants import ENCODERS, VARIANTS, made
from tests.peers import of

TOKENS = np.random.default_rng(0).integers(4, 64, (3, 9)).astype(np.int32)
LABELS = ('a', 'b', 'c')


def classifier(name: str):
  """A config and parameters that are like this class."""
  encoder = replace(ENCODERS['bert'], vocab=160, head=None)
  if name.startswith('Roberta'):
    encoder = replace(encoder, positions=ENCODERS['roberta'].positions, embedding=ENCODERS['roberta'].embedding)
  _, params = made(encoder)
  head = Classifier(3, dense='Sequence' in name)(params, jax.random.key(3))['classifier']
  return encoder, params | {'classifier': jax.tree.map(lambda leaf: 20 * leaf + 0.1, head)}


def logits(config, params) -> np.ndarray:
  model, ones = build(config), jnp.ones_like(TOKENS)
  return np.asarray(jax.jit(lambda params: class_logits(params, model.hidden(params, TOKENS, ones), ones))(params))


@pytest.mark.parametrize('name', HEADS)
def test_what_is_written_is_read_again(name, tmp_path):
  config, params = classifier(name)
  assert export_classifier(tmp_path / 'mine', config, params, words(), LABELS) == name
  found = open_classifier(tmp_path / 'mine')
  assert found.labels == LABELS and found.config == config
  jax.tree.map(np.testing.assert_array_equal, found.params, params)


def test_transformers_says_the_same(tmp_path):
  ours = {name: classifier(name) for name in HEADS}
  for name, (config, params) in ours.items():
    export_classifier(tmp_path / 'ours' / name, config, params, words(), LABELS)
  said = of.told('trl', 'classifiers.py', tmp_path, tokens=TOKENS, names=np.array(list(HEADS)))
  for name, (config, params) in ours.items():
    theirs = open_classifier(tmp_path / 'theirs' / name)
    assert theirs.labels == LABELS
    for side, found in (('ours', logits(config, params)), ('theirs', logits(theirs.config, theirs.params))):
      wanted = said[f'{side}/{name}']
      np.testing.assert_allclose(found[:, :wanted.shape[1]], wanted, atol=1e-4 * np.abs(wanted).max(), err_msg=f'{side} {name}')
      assert np.abs(wanted).max() > 0.1


def test_heads_that_transformers_has_not_are_refused(tmp_path):
  config, params = classifier('BertForTokenClassification')
  mean = {name: part for name, part in params.items() if name != 'classifier'}
  mean = Classifier(3, 'mean')(mean, jax.random.key(0))
  with pytest.raises(ConfigError, match=r'no-classifier.*\n.*read one token'):
    export_classifier(tmp_path / 'mine', config, mean, words(), LABELS)
  llama = replace(VARIANTS['llama'], vocab=160)
  with pytest.raises(ConfigError, match='no-classifier'):
    export_classifier(tmp_path / 'mine', llama, Classifier(3)(made(llama)[1], jax.random.key(0)), words(), LABELS)
  assert not (tmp_path / 'mine').exists()


def test_folders_that_are_none_are_refused(tmp_path):
  config, params = classifier('BertForTokenClassification')
  export_classifier(tmp_path / 'mine', config, params, words(), LABELS)
  told = (tmp_path / 'mine' / 'config.json').read_text()
  for other, id in (('BertForSequenceClassification', r'weights\.names'), ('BertForMaskedLM', r'weights\.architecture')):
    (tmp_path / 'mine' / 'config.json').write_text(told.replace('BertForTokenClassification', other))
    with pytest.raises(DataError, match=id):
      open_classifier(tmp_path / 'mine')
