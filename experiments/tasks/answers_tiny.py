"""The same as `answers.py` of 64 questions, in a minute or two on two cores.

  python -m experiments.launch --config=experiments/tasks/answers_tiny.py

Result, as the same task has it in `smollm2/evaluation_tiny.py`: exact match 0.047 (0.000 to 0.109), token F1 0.092 (0.042 to
0.152); the wanted answer is in what is said to 17.2% of the questions. Without the examples, which show how short an answer is,
exact match was 0.
"""

from experiments.smollm2.chat import get_config as smollm2
from experiments.tasks.answers import answers
from train.eval.evaluation import Evaluation


def get_config() -> Evaluation:
  return Evaluation(name='smollm2-trivia-tiny', run=smollm2(), tasks=(answers(64),))
