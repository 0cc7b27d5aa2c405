"""A vocabulary with control tokens added to another one.

    ExtendedVocabulary(name='words-and-tools', base=parent.vocabulary, tokens=('<|tool|>', '<|result|>'))

The model needs a row for each: `model.new_tokens`.
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from model.errors import ConfigError
from model.tokenizer import SentencePiece, Tokenizer
from model.tokenizer_adding import check_added, json_with, pieces_with
from model.tokenizer_json import FILE, Specials, TokenizerJson
from train.artifact import Store, digest, read_json, write_json
from train.data.encoding import Opening
from train.data.vocabulary import MODEL, AnyVocabulary

MANIFEST = 'extended.json'


@dataclass(frozen=True, kw_only=True)
class ExtendedVocabulary(AnyVocabulary):
  """The tokenizer of `base` and control tokens of these names, whose ids follow its own. No text becomes one of them."""

  base: AnyVocabulary
  tokens: tuple[str, ...]
  size: int = field(init=False)

  def __post_init__(self):
    if not self.tokens or len({*self.tokens}) < len(self.tokens) or not all(token.strip() for token in self.tokens):
      raise ConfigError('vocabulary.tokens', f'tokens = {self.tokens}', 'they are names, each its own',
                        "for example ('<|tool|>', '<|result|>')")
    object.__setattr__(self, 'size', self.base.size + len(self.tokens))

  def make(self, folder: Path, store: Store) -> None:
    """Writes the tokenizer. Raises: ConfigError where it has such a token, or cannot have these."""
    before = self.base.load(store)
    if isinstance(before, SentencePiece):
      data = pieces_with(before.path.read_bytes(), before.pieces, self.tokens, self.name)
      (folder / MODEL).write_bytes(data)
    elif isinstance(before, TokenizerJson):
      data = json_with(before, self.tokens)
      (folder / FILE).write_bytes(data)
    else:
      raise ConfigError('vocabulary.cannot-extend', type(before).__name__, 'its form is not known here', 'extend another')
    sha256, calls = hashlib.sha256(data).hexdigest(), {i: name for name, i in before.controls.items()}
    write_json(folder / MANIFEST, {'sha256': sha256, 'bos': calls[before.bos], 'eos': calls[before.eos],
                                   'pad': calls[before.pad], 'more': [*before.controls, *self.tokens]})
    check_added(before, opened(folder, sha256), self.tokens, self.name)

  def opening(self, store: Store) -> Opening:
    folder = store.find(self)
    return Opening(opened, (folder, read_json(folder / MANIFEST)['sha256']))


def opened(folder: Path, sha256: str) -> Tokenizer:
  """The tokenizer that lies there. Raises: DataError if it is not as it was made."""
  if (folder / MODEL).exists():
    return SentencePiece(folder / MODEL, sha256)
  kept = read_json(folder / MANIFEST)
  specials = Specials(kept['bos'], kept['eos'], kept['pad'], tuple(kept['more']))
  return TokenizerJson((folder / FILE).read_bytes(), specials, str(folder / FILE), sha256)


def added_to(base: AnyVocabulary, vocabulary: AnyVocabulary) -> int | None:
  """How many tokens `vocabulary` adds to `base`: 0 if it is the same; None if it does not extend it."""
  more = 0
  while digest(vocabulary) != digest(base):
    if not isinstance(vocabulary, ExtendedVocabulary):
      return None
    more += len(vocabulary.tokens)
    vocabulary = vocabulary.base
  return more
