"""Control codes: documents after a control token that says what they are, so that a model learns to write to order.

    CodedTokens(name='coded', corpus=reviews, vocabulary=extended, field='kind', codes=(('fresh', '<|fresh|>'), ...))

Keskar et al. 2019 ("CTRL"); Korbak et al. 2023 ("Pretraining language models with human preferences") mark with them what
people like. The tokens may be those that `train.data.extended` adds to a vocabulary.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.errors import ConfigError, DataError
from model.tokenizer import Tokenizer
from train.artifact import Store
from train.data.document import Split
from train.data.encoding import Encoded
from train.data.tokens import TokenFiles


@dataclass(frozen=True, kw_only=True)
class CodedTokens(TokenFiles):
  """Each document as `bos code ids eos`, its code by what its `meta` says under `field`; the code is read and not learnt."""

  field: str
  codes: tuple[tuple[str, str], ...]     # what a document says there, and the name of its token

  def __post_init__(self):
    if not self.codes or len(dict(self.codes)) < len(self.codes):
      raise ConfigError('codes.names', f'codes = {self.codes}', 'each value of the field has one', 'name a token for each')

  def make(self, folder: Path, store: Store) -> None:
    """Writes the files. Raises: DataError for a code that is no control token, or a document that has none."""
    tokenizer = self.vocabulary.load(store)
    if missing := {*dict(self.codes).values()} - tokenizer.controls.keys():
      raise DataError('codes.no-token', f'{self.vocabulary.name}: {min(missing)}', 'it has no control token of that name',
                      'extend it: ExtendedVocabulary')
    self.write(folder, tokenizer, lambda split: self._encoded(store, split, tokenizer))

  def _encoded(self, store: Store, split: Split, tokenizer: Tokenizer) -> Iterator[Encoded]:
    codes = {said: tokenizer.controls[token] for said, token in self.codes}
    for document in self.corpus.documents(store.find(self.corpus), split):
      if (said := document.meta.get(self.field, '')) not in codes:
        raise DataError('codes.unknown', f'{document.source}:{document.id}: {self.field} = {said!r}',
                        f'there are codes for {", ".join(codes)}', 'name one for it, or leave such documents out')
      ids = np.array([tokenizer.bos, codes[said], *tokenizer.encode(document.text), tokenizer.eos])
      yield Encoded(document.source, document.id, ids, (np.arange(len(ids)) > 1).astype(np.uint8))
