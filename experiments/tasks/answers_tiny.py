"""The same as `answers.py` on 64 questions, in a minute or two on two CPU cores.

  python -m experiments.launch --config=experiments/tasks/answers_tiny.py

Result (from the same task in `smollm2/evaluation_tiny.py`): exact match 0.047 (0.000 to 0.109), token F1 0.092 (0.042 to
0.152); the right answer is contained in 17.2% of the answers. Without the few-shot examples, which show that answers are short,
exact match was 0.
"""

from experiments.smollm2.chat import get_config as smollm2
from experiments.tasks.answers import answers
from train.eval.evaluation import Evaluation


def get_config() -> Evaluation:
  return Evaluation(name='smollm2-trivia-tiny', run=smollm2(), tasks=(answers(64),))
