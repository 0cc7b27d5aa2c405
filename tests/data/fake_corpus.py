"""A corpus of a few given texts, for tests of what is made from a corpus."""

from dataclasses import dataclass

from train.artifact import Artifact, Store
from train.data.document import Document
from train.data.tokens import Tokens
from train.data.vocabulary import Vocabulary

SENTENCES = ('The state of the union is strong.', 'We the people of these states,', 'to form a more perfect union',
             'année 1790: naïve!', '\n\nFellow citizens of the Senate:', '  a \t tab, <|eos|> and \u2581')


@dataclass(frozen=True, kw_only=True)
class FakeCorpus(Artifact):
  """`train` and `heldout` are texts; the source of each document is `odd` or `even`, by its place."""

  train: tuple[str, ...]
  heldout: tuple[str, ...] = ()

  def make(self, folder, store):
    pass

  def documents(self, folder, split):
    for index, text in enumerate(getattr(self, split)):
      yield Document(text, 'odd' if index % 2 else 'even', f'{split}-{index}')


def texts(count: int, salt: int = 0) -> tuple[str, ...]:
  """So many different texts of 1 to 12 sentences."""
  return tuple(' '.join(SENTENCES[(i + j * (i + salt + 1)) % 6] for j in range(i % 12 + 1)) + f' {i}.{salt}'
               for i in range(count))


def made(root, count: int = 40, heldout: int = 7, salt: int = 0, **fields) -> tuple[Tokens, Store]:
  """Tokens of such a corpus, made under `root`."""
  corpus = FakeCorpus(name='fake', train=texts(count, salt), heldout=texts(heldout, salt + 1))
  vocabulary = Vocabulary(name='vocabulary', corpus=corpus, size=340)
  tokens = Tokens(name=f'tokens{salt}', corpus=corpus, vocabulary=vocabulary, **fields)
  store = Store(root)
  store.make(tokens)
  return tokens, store
