"""A model for others: a folder as Hugging Face lays it, for `transformers`, or a GGUF file, for llama.cpp.

    export(Path('mine'), config, params, tokenizer, ChatML(), 'bfloat16')
    AutoModelForCausalLM.from_pretrained('mine'), AutoTokenizer.from_pretrained('mine')

What is written appears whole, or not at all.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from model import chat
from model.adapter_tree import adapted, largest_change, merge
from model.config import Decoder, Learned
from model.decoder import OWN, Params, build, own
from model.errors import ConfigError, DataError, StorageError
from model.linear import is_weight
from model.quantize import Quantized, dequantize
from model.template import Template
from model.tokenizer import Tokenizer
from model.tokenizer_gguf import PREFIX
from model.weights.chat_source import source_of
from model.weights.families import family_for
from model.weights.folder import CONFIG, write_tensors
from model.weights.gguf import open_gguf
from model.weights.gguf_model import write_model
from model.weights.loading import published
from model.weights.said import Fields
from model.weights.tensor import Slices, Tensor
from model.weights.tokenizing import json_of, metadata_of, named

READS = 'max_position_embeddings'
KINDS = ('float32', 'bfloat16', 'float16')
TRIED = 64                               # tokens by which a merge is judged


class Exported(NamedTuple):
  """`family` is whose form it has, `change` the most that merged adapters moved a logit, `left_out` what is not in it."""

  family: str
  tensors: int
  change: float
  left_out: tuple[str, ...]


class Plain(NamedTuple):
  """The parameters of the model itself as arrays, and the most that merged adapters moved a logit."""

  params: Params
  change: float
  left_out: tuple[str, ...]


def export(folder: Path, config: Decoder, params: Params, tokenizer: Tokenizer, template: Template | None = None,
           kind: str = 'float32', dequantise: bool = False, context: int | None = None) -> Exported:
  """What was written: config, tensors in `kind`, tokenizer, template, and what ends an answer. Adapters are merged.

  `context` is how many tokens the model has learnt to read at once, for those that ask its config.
  Raises: ConfigError for a model or a tokenizer that no known family has words for, for few bits unless `dequantise`, and
  where the folder is there; DataError for numbers that `kind` does not hold.
  """
  if kind not in KINDS:
    raise ConfigError('weights.kind', f'tensors in {kind!r}', f'written are {", ".join(KINDS)}', 'choose one of them')
  check_new(folder)
  check_fit(config, tokenizer, template)
  family, fields = family_for(config)
  whole = plain(config, params, dequantise)
  source = None if template is None else source_of(template, tokenizer)
  tensors = [held(each) for each in published(config, family.rules(config), whole.params, jnp.dtype(kind))]
  with appearing(folder) as part:
    write_tensors(part, tensors)
    (part / 'tokenizer.json').write_bytes(json_of(tokenizer))
    write_object(part / 'tokenizer_config.json', _calls(tokenizer, source))
    write_object(part / CONFIG, _numbered(tokenizer) | {'torch_dtype': kind} | told(config, fields, context))
    write_object(part / 'generation_config.json', _numbered(tokenizer) | {'eos_token_id': endings(template, tokenizer)})
  return Exported(family.architecture, len(tensors), whole.change, whole.left_out + untold(template, source))


def export_gguf(path: Path, config: Decoder, params: Params, tokenizer: Tokenizer, template: Template | None = None,
                kind: str = 'F16', dequantise: bool = False, context: int | None = None) -> Exported:
  """The same as a file, its matrices as F32, F16 or Q8_0. Raises: as `export` does."""
  check_new(path)
  check_fit(config, tokenizer, template)
  whole = plain(config, params, dequantise)
  source = None if template is None else source_of(template, tokenizer)
  metadata: Fields = {'general.name': path.stem} | metadata_of(tokenizer, config.vocab)
  if source is not None:
    metadata |= {'tokenizer.chat_template': source}
  if (turn := endings(template, tokenizer)[0]) != tokenizer.eos:
    metadata |= {f'{PREFIX}eot_token_id': turn}
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    name = write_model(path, config, whole.params, metadata, kind, context)
  except OSError as error:
    raise _unwritable(path, error) from error
  return Exported(name, len(open_gguf(path).tensors), whole.change, whole.left_out + untold(template, source))


def told(config: Decoder, fields: Fields, context: int | None) -> Fields:
  """The fields of a config.json, and how far the model reads, which no table of learned positions says."""
  return fields if context is None or isinstance(config.positions, Learned) else fields | {READS: context}


def check_fit(config: Decoder, tokenizer: Tokenizer, template: Template | None) -> None:
  """Raises: ConfigError where the tokenizer has ids that the model has no vectors for, DataError where it lacks controls."""
  if template is not None:
    chat.check_controls(template, tokenizer)
  if tokenizer.size > config.vocab:
    raise ConfigError('vocabulary.other-size', f'a tokenizer of {tokenizer.size} ids', f'the model has {config.vocab}',
                      'use the tokenizer that it was trained with')


def plain(config: Decoder, params: Params, dequantise: bool = False) -> Plain:
  """The model without adapters and, if that is asked for, in no few bits. Raises: ConfigError as `merge` does."""
  beside = tuple(f'{name}: it is no part of the model itself' for name in params if name not in OWN)
  before = own(params)
  after = jax.tree.map(lambda w: _whole(w, dequantise), merge(before, dequantise), is_leaf=is_weight)
  if not adapted(before):
    return Plain(after, 0.0, beside)
  tokens_BL = jax.random.randint(jax.random.key(0), (1, TRIED), 0, config.vocab)
  return Plain(after, float(jax.jit(partial(largest_change, build(config)))(before, after, tokens_BL)), beside)


def _whole(w: Any, dequantise: bool) -> jax.Array:
  if not isinstance(w, Quantized):
    return w
  if not dequantise:
    raise ConfigError('weights.quantised', f'a matrix in {w.kind}', 'files for others hold none of that form', 'ask for a '
                      'dequantised copy: --dequantise')
  return dequantize(w)


def held(tensor: Tensor) -> Tensor:
  """The same; where numbers become infinite in its type, reading it raises DataError."""
  def read(slices: Slices) -> np.ndarray:
    with np.errstate(over='ignore'):
      x = tensor.read(slices)
    if not np.isfinite(x.astype(np.float32, copy=False)).all():
      raise DataError('weights.beyond-type', f'tensor {tensor.name}', f'it holds numbers that are none, or none in {x.dtype}',
                      'write float32; if that is refused too, take an earlier checkpoint')
    return x

  return tensor._replace(read=read)


def endings(template: Template | None, tokenizer: Tokenizer) -> list[int]:
  """The ids that end what a model writes: that of a turn, and that of a document."""
  turn = [] if template is None else [chat.ends(template, tokenizer).eos]
  return list(dict.fromkeys([*turn, tokenizer.eos]))


def untold(template: Template | None, source: str | None) -> tuple[str, ...]:
  """What of a template the files do not say."""
  if template is None:
    return ()
  name = type(template).__name__
  lost = [f'the chat template {name}: no text in Jinja is known that writes just what it writes'] if source is None else []
  return (*lost, *(f'the text {stop!r} that ends an answer in {name}' for stop in template.stops))


def _numbered(tokenizer: Tokenizer) -> Fields:
  return {'bos_token_id': tokenizer.bos, 'eos_token_id': tokenizer.eos, 'pad_token_id': tokenizer.pad}


def _calls(tokenizer: Tokenizer, source: str | None) -> Fields:
  roles = {f'{role}_token': name for role, name in named(tokenizer)._asdict().items()}
  said: Fields = {'tokenizer_class': 'PreTrainedTokenizerFast', 'clean_up_tokenization_spaces': False} | roles
  return said if source is None else said | {'chat_template': source}


def write_object(path: Path, value: Fields) -> None:
  """Writes it as JSON."""
  path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + '\n', encoding='utf-8')


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
  """A folder to write into, which gets its name when all is written and leaves nothing behind when that fails.

  Raises: ConfigError where something has that name; StorageError where it cannot be written.
  """
  check_new(folder)
  part = folder.with_name(f'.{folder.name}.{os.getpid()}.part')
  try:
    part.mkdir(parents=True)
    yield part
    for path in part.iterdir():
      path.chmod(part.stat().st_mode & 0o666)                # some are written for their owner alone
    part.rename(folder)
  except OSError as error:
    raise _unwritable(folder, error) from error
  finally:
    shutil.rmtree(part, ignore_errors=True)


def _unwritable(path: Path, error: OSError) -> StorageError:
  return StorageError('storage.cannot-write', str(path), error.strerror or str(error), 'make room, or write it elsewhere')


def check_new(path: Path) -> None:
  """Raises: ConfigError where something is there."""
  if path.exists():
    raise ConfigError('weights.there', str(path), 'it is there already, and nothing is written over', 'give another name, '
                      'or remove it first')
