"""A real training of seconds, launched as a person would launch it: `python -m experiments.launch --config=tiny.py`."""

import shutil
from pathlib import Path

import grain  # noqa: F401  (defines flags, which the flagsaver would take away again)
from absl.testing import flagsaver

from experiments import command, launch

ROOT = Path(__file__).resolve().parents[2]
STEPS = 8
TINY = """
from model.sizes import llama
from train.data.corpus import Corpus
from train.data.readers import TextFiles
from train.data.rows import Rows
from train.data.tokens import Tokens
from train.data.vocabulary import Vocabulary
from train.run import Run, Saving, Watch

def get_config():
  corpus = Corpus(name='speeches', sources=(TextFiles('{text}', source='speeches'),), stages=(), heldout_modulo=2)
  vocabulary = Vocabulary(name='pieces', corpus=corpus, size=400)
  rows = Rows(Tokens(name='tokens', corpus=corpus, vocabulary=vocabulary), length=16)
  return Run(name='tiny', model=llama(400, width=16, layers=1, count=1), rows=rows, batch=8, steps={steps},
             watch=Watch(metrics=1, heldout=0), saving=Saving(every={every}))
"""


def live(folder: Path, steps: int = STEPS, every: int = 2) -> Path:
  """One life of the run in `folder`; gives the run's own folder, or raises what ended it."""
  folder.mkdir(parents=True, exist_ok=True)
  config = folder / 'tiny.py'
  config.write_text(TINY.format(text=ROOT / 'tests' / 'data' / 'sample' / '*.txt', steps=steps, every=every))
  with flagsaver.flagsaver():
    launch.main(command.parse(['launch', f'--config={config}', f'--runs={folder / "runs"}']))
  return made(folder)


def made(folder: Path) -> Path:
  """The run's own folder."""
  [run] = (folder / 'runs').glob('tiny-*')
  return run


def parents(template: Path, folder: Path) -> None:
  """Gives a new folder what a run there needs: corpus, vocabulary and tokens, made elsewhere."""
  shutil.copytree(template / 'runs', folder / 'runs', ignore=shutil.ignore_patterns('tiny-*'))
