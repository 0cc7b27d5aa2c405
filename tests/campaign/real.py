"""Real trainings of seconds, launched as a person would launch them: `python -m experiments.launch --config=tiny.py`."""

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

POLICY = TINY.replace('def get_config', 'def before').replace("name='tiny'", "name='before'") + """
from dataclasses import replace
from align.credit import FromCritic
from align.critic import Critic
from align.kl import Adaptive
from align.policy import PPO
from align.questions import FromTask
from align.rewards import Length, Part, Verified
from align.rollout import Rollouts
from align.tasks import Largest
from model.chat import Plain

def get_config():
  parent = replace(before(), steps=2, saving=Saving(every=0))
  rows = Rollouts(questions=FromTask(Largest(3)), rewards=(Part('right', Verified(Largest(3))), Part('short', Length(-0.1))),
                  vocabulary=parent.rows.vocabulary, template=Plain(), credit=FromCritic(), asked=8, group=2, epochs=2,
                  prompt_tokens=48, answer_tokens=6, kl=Adaptive(0.1, target=0.01, horizon=64))
  return replace(parent, name='tiny', restore=parent, edits=(Critic(),), rows=rows, objective=PPO(), steps={steps},
                 saving=Saving(every={every}))
"""


def live(folder: Path, steps: int = STEPS, every: int = 2, config: str = TINY) -> Path:
  """One life of the run in `folder`; gives the run's own folder, or raises what ended it."""
  with flagsaver.flagsaver():
    launch.main(command.parse(['launch', *arguments(folder, steps, every, config)]))
  return made(folder)


def arguments(folder: Path, steps: int, every: int, config: str) -> list[str]:
  """What to launch for that."""
  folder.mkdir(parents=True, exist_ok=True)
  file = folder / 'tiny.py'
  file.write_text(config.format(text=ROOT / 'tests' / 'data' / 'sample' / '*.txt', steps=steps, every=every))
  return [f'--config={file}', f'--runs={folder / "runs"}']


def made(folder: Path) -> Path:
  """The run's own folder."""
  [run] = (folder / 'runs').glob('tiny-*')
  return run


def parents(template: Path, folder: Path) -> None:
  """Gives a new folder what a run there needs: corpus, vocabulary and tokens, made elsewhere."""
  shutil.copytree(template / 'runs', folder / 'runs', ignore=shutil.ignore_patterns('tiny-*'))
