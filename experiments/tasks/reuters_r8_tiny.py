"""The recipe of `reuters_r8.py` on the first 64 tokens of each text and for a third of an epoch, in minutes on a CPU.

  python -m experiments.launch --config=experiments/tasks/reuters_r8_tiny.py

Result (2026-11-27, two shared CPU cores, 3 min with evaluation): weighted F1 0.961 (0.951 to 0.968), macro 0.889.
"""

from dataclasses import replace

from experiments.tasks.reuters_r8 import CLASSES, classifier, evaluation, texts
from train.eval.evaluation import Evaluation
from train.run import Watch


def get_config() -> Evaluation:
  run = classifier('reuters-r8-tiny', texts('reuters-r8', 'reuters-r8'), CLASSES, length=64, steps=100)
  return evaluation(replace(run, watch=Watch(heldout=50, heldout_rows=200)))
