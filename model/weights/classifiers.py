"""Encoders with a classification head, read and written as transformers has them: BERT and RoBERTa, for texts or words.

    export_classifier(Path('mine'), config, params, tokenizer, ('ham', 'spam'))
    AutoModelForSequenceClassification.from_pretrained('mine')
    config, params, labels = open_classifier(Path('theirs'))

A head on the first token with a dense layer before it is theirs of texts (`BertForSequenceClassification`), one without is
theirs of words (`BertForTokenClassification`). They have none on the mean of a text.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from model.config import Decoder
from model.decoder import Params
from model.errors import ConfigError, DataError
from model.tokenizer import Tokenizer
from model.weights import encoders, loading
from model.weights.exporting import appearing, check_fit, held, plain, write_object
from model.weights.families import family_for
from model.weights.folder import CONFIG, open_tensors, read_config, write_tensors
from model.weights.names import Rules
from model.weights.said import Said
from model.weights.tensor import Tensor
from model.weights.tokenizing import json_of, named


class Head(NamedTuple):
  """An architecture; the names of its last matrix and of the dense layer before it, if there is one."""

  last: str
  dense: str | None = None


HEADS = {
  'BertForSequenceClassification': Head('classifier', 'bert.pooler.dense'),
  'BertForTokenClassification': Head('classifier'),
  'RobertaForSequenceClassification': Head('classifier.out_proj', 'classifier.dense'),
  'RobertaForTokenClassification': Head('classifier'),
}


class Classifying(NamedTuple):
  """A model with a head, which `model.classifier` reads, and what its classes are called."""

  config: Decoder
  params: Params
  labels: tuple[str, ...]


def export_classifier(folder: Path, config: Decoder, params: Params, tokenizer: Tokenizer, labels: tuple[str, ...]) -> str:
  """The architecture of what was written, in float32: config, tensors, tokenizer. Adapters are merged.

  Raises: ConfigError for a model or a head that transformers has no class for, and where the folder is there.
  """
  check_fit(config, tokenizer, None)
  bare = replace(config, head=None)
  family, fields = family_for(bare)
  name = _architecture(family.model_type, params)
  head = params['classifier']['token']
  tensors = loading.published(bare, _body(bare, family.model_type), plain(config, params).params, np.dtype('float32'))
  tensors += [tensor for theirs, layer in _layers(name, head) for tensor in _written(theirs, layer)]
  known = {'architectures': [name], 'id2label': dict(enumerate(labels)), 'label2id': {x: i for i, x in enumerate(labels)}}
  with appearing(folder) as part:
    write_tensors(part, [held(tensor) for tensor in tensors])
    (part / 'tokenizer.json').write_bytes(json_of(tokenizer))
    roles = {f'{role}_token': token for role, token in named(tokenizer)._asdict().items()}
    write_object(part / 'tokenizer_config.json', {'tokenizer_class': 'PreTrainedTokenizerFast'} | roles)
    write_object(part / CONFIG, {'pad_token_id': tokenizer.pad} | fields | known)
  return name


def open_classifier(folder: Path) -> Classifying:
  """What lies there, on one device. Raises: DataError that names what is missing or not known here."""
  said = Said(str(folder / CONFIG), read_config(folder))
  name, = said.fields.get('architectures') or ['']
  if name not in HEADS:
    raise DataError('weights.architecture', f'{said.where}: architectures = [{name!r:.80}]', f'known are {", ".join(HEADS)}',
                    'use a model of one of these')
  kind = 'roberta' if name.startswith('Roberta') else 'bert'
  config = encoders.roberta(said) if kind == 'roberta' else encoders.bert(said)
  tensors, head = dict(open_tensors(folder)), dict[str, Any]()
  for ours, theirs in (('', HEADS[name].last), ('dense', HEADS[name].dense)):
    if theirs is not None:
      layer = {'weight': _read(tensors, folder, f'{theirs}.weight').T, 'bias': _read(tensors, folder, f'{theirs}.bias')}
      head |= {ours: layer} if ours else layer
  places = jax.tree.map(lambda _: jax.sharding.SingleDeviceSharding(jax.devices()[0]), loading.abstract(config))
  params = loading.load(config, _body(config, kind), tensors, places)
  return Classifying(config, params | {'classifier': {'token': head}}, _labels(said, head['bias'].size))


def _body(config: Decoder, kind: str) -> Rules:
  return encoders.body(config, f'{kind}.')


def _architecture(kind: str, params: Params) -> str:
  """Which of them a head is. Raises: ConfigError for one that none is like."""
  head = params.get('classifier', {}).get('token')
  prefix = {'bert': 'Bert', 'roberta': 'Roberta'}.get(kind)
  if head is None or prefix is None:
    raise ConfigError('weights.no-classifier', f'a {kind} with a head {list(params.get("classifier", {}))}',
                      f'{", ".join(HEADS)} read one token', "train with Classifier(pooling='token'), over BERT or RoBERTa")
  return f'{prefix}For{"Sequence" if "dense" in head else "Token"}Classification'


def _layers(name: str, head: Params) -> list[tuple[str, Params]]:
  dense = HEADS[name].dense
  return [(HEADS[name].last, head), *([] if dense is None else [(dense, head['dense'])])]


def _written(theirs: str, layer: Params) -> list[Tensor]:
  arrays = {'weight': np.asarray(layer['weight'], np.float32).T, 'bias': np.asarray(layer['bias'], np.float32)}
  return [Tensor(f'{theirs}.{part}', x.shape, x.dtype, x.__getitem__) for part, x in arrays.items()]


def _read(tensors: dict[str, Tensor], folder: Path, name: str) -> jax.Array:
  """A tensor of the head, taken out. Raises: DataError if it is not there."""
  if name not in tensors:
    raise DataError('weights.names', f'{folder}: missing {name}', 'its architecture has it', 'fetch the folder again')
  return jnp.asarray(tensors.pop(name).whole(), jnp.float32)


def _labels(said: Said, classes: int) -> tuple[str, ...]:
  names = said.part('id2label').fields
  return tuple(str(names.get(str(i), f'LABEL_{i}')) for i in range(classes))
