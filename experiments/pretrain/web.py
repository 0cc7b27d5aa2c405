"""The data of the pre-training runs: English web text (C4, through TFDS), or a few speeches for their `_tiny` versions.

C4 is read from TFDS's data folder, where TFDS has to prepare it first: that takes internet access and about 800 GB. For other
text, use another reader here: JsonLines, Parquet, Warc, TextFiles.
"""

from train.data.corpus import Corpus
from train.data.readers import TextFiles
from train.data.tfds_reader import Tfds
from train.data.tokens import Tokens
from train.data.vocabulary import Vocabulary


def web_tokens(vocab: int, split: str) -> Tokens:
  """The tokens of a part of C4, such as `train[:10%]`, in a vocabulary trained on a hundredth of it."""
  corpus = Corpus(name='c4', sources=(Tfds('c4/en', split, source='c4'),), heldout_modulo=10_000)
  vocabulary = Vocabulary(name='c4-bpe', corpus=corpus, size=vocab, share=0.01)
  return Tokens(name='c4-tokens', corpus=corpus, vocabulary=vocabulary, workers=16)


def sample_tokens(vocab: int = 512) -> Tokens:
  """The tokens of eleven speeches in this repository, 400 kB: to try out a pipeline."""
  corpus = Corpus(name='speeches', sources=(TextFiles('tests/data/sample/*.txt', source='speeches'),), heldout_modulo=4)
  vocabulary = Vocabulary(name='speeches-bpe', corpus=corpus, size=vocab)
  return Tokens(name='speeches-tokens', corpus=corpus, vocabulary=vocabulary)


