"""What the rows begin with: a launch, a small corpus, its tokens and batches."""

from pathlib import Path

from absl.testing import flagsaver


def launch(folder: Path, *argv: str) -> None:
  """`python -m experiments.launch` with an experiment of toys, or with the one that argv names."""
  from experiments import command
  from experiments.launch import main
  file = folder / 'bread.py'
  file.write_text('from experiments.bakery import get_config\n')
  with flagsaver.flagsaver():
    main(command.parse(['launch', f'--config={file}', f'--runs={folder / "runs"}', *argv]))


def corpus(folder: Path, heldout_modulo: int = 2):
  """Twelve short documents; one in so many is held out."""
  from train.data.corpus import Corpus
  from train.data.readers import TextFiles
  for number in range(12):
    (folder / f'{number:02d}.txt').write_text(f'{number}. A speech about the state of the union and of the people.\n' * 20)
  return Corpus(name='c', sources=(TextFiles(f'{folder}/*.txt'),), stages=(), heldout_modulo=heldout_modulo)


def tokens(folder: Path, heldout_modulo: int = 2):
  """Their tokens, made, and the store that holds them."""
  from train.artifact import Store
  from train.data.tokens import Tokens
  from train.data.vocabulary import Vocabulary
  words = corpus(folder, heldout_modulo)
  made = Tokens(name='t', corpus=words, vocabulary=Vocabulary(name='v', corpus=words, size=310))
  store = Store(folder / 'runs')
  store.make(made)
  return made, store


def batches(folder: Path, batch: int = 2, length: int = 16):
  """A source of batches of those tokens, in numpy."""
  from train.data.pipeline import Batches
  from train.data.rows import Rows
  made, store = tokens(folder)
  return Batches(Rows(made, length).visits(store), batch)
