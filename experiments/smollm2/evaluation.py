"""Evaluates SmolLM2-135M before and after `lora.py`: held-out reviews, general questions and titles, compared item by item.

  python -m experiments.launch --config=experiments/smollm2/evaluation.py

For one GPU, not run yet; `evaluation_tiny.py` is the same in minutes on a CPU.
"""

from align.reviews import FilmTexts
from experiments.smollm2.chat import get_config as smollm2
from experiments.smollm2.lora import get_config as lora
from experiments.tasks.answers import answers
from experiments.tasks.summaries import summaries
from train.data.corpus import Corpus
from train.data.dedupe import ExactDuplicates
from train.eval.comparison import Comparison
from train.eval.evaluation import Evaluation
from train.eval.foretelling import Foretelling
from train.eval.task import Task
from train.run import Parent

PROSE = Corpus(name='film-prose', sources=(FilmTexts(),), stages=(ExactDuplicates(),), heldout_modulo=5, heldout_by='film')


def reviews(items: int) -> Foretelling:
  """Bits per byte on sentences of reviews and plots of films that `lora.py` holds out."""
  return Foretelling(name='reviews', corpus=PROSE, items=items, longest=1000, length=256)


def evaluated(run: Parent, tasks: tuple[Task, ...]) -> Evaluation:
  """The evaluation of a model on these tasks."""
  return Evaluation(name=f'{run.name}-tasks', run=run, tasks=tasks)


def get_config() -> Comparison:
  tasks = (reviews(2000), answers(260), summaries(253))
  return Comparison(name='smollm2-lora-gave', one=evaluated(smollm2(), tasks), other=evaluated(lora(), tasks))
