"""A published model, opened: a folder as Hugging Face lays it, or a GGUF file. What it is, its tensors, its tokenizer."""

from pathlib import Path
from typing import NamedTuple

from model.config import Decoder
from model.errors import DataError
from model.tokenizer import Tokenizer
from model.tokenizer_gguf import tokenizer_of
from model.tokenizer_json import read_tokenizer
from model.weights import folder, gguf_model
from model.weights.families import Family, family_of
from model.weights.gguf import open_gguf
from model.weights.names import Rules
from model.weights.said import Said
from model.weights.tensor import Tensors


class Opened(NamedTuple):
  """A model of which only headers were read. `context` is its context length in tokens, if the files say it."""

  family: Family
  config: Decoder
  tensors: Tensors
  context: int | None

  @property
  def rules(self) -> Rules:
    return self.family.rules(self.config)


def open_published(path: Path) -> Opened:
  """What lies there. Raises: DataError that names what is missing or not known here."""
  if is_folder(path):
    said, tensors = Said(str(path / folder.CONFIG), folder.read_config(path)), folder.open_tensors(path)
  else:
    said, tensors = gguf_model.open_model(path)
  family = family_of(said)
  context = said.count('max_position_embeddings') if said.has('max_position_embeddings') else None
  return Opened(family, family.read(said), tensors, context)


def open_tokenizer(path: Path) -> Tokenizer:
  """The tokenizer that lies there. Raises: DataError that names what is missing or not known here."""
  return read_tokenizer(path) if is_folder(path) else tokenizer_of(open_gguf(path).metadata, str(path))


def is_folder(path: Path) -> bool:
  """Whether it is one, or else a GGUF file. Raises: DataError if it is neither."""
  if not path.is_dir() and path.suffix != '.gguf':
    raise DataError('weights.missing', str(path), 'it is neither a folder nor a .gguf file', 'check the path')
  return path.is_dir()
