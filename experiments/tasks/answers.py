"""Question answering: SmolLM2-135M-Instruct on 260 questions of general knowledge, by SQuAD's exact match and token F1.

  python -m experiments.launch --config=experiments/tasks/answers.py

The questions are from the wheel `chatterbot-corpus` (BSD-3, 0.3 MB, pinned by sha256). Its file of support questions,
tech_support, is not used: its 1,050 exchanges are ten different ones. `answers_tiny.py` is the same on 64 questions, with a
result.
"""

from experiments.smollm2.chat import get_config as smollm2
from train.data.corpus import Corpus
from train.eval.answers import Answers
from train.eval.evaluation import Evaluation
from train.eval.replying import Replying
from train.eval.sets import trivia

TRIVIA = Corpus(name='trivia', sources=(trivia(),), stages=(), heldout_modulo=2)

EXAMPLES = (('What is the capital of France?', 'Paris'), ('How many days are there in a week?', '7'),
            ('Who wrote “Romeo and Juliet”?', 'William Shakespeare'))


def answers(items: int) -> Answers:
  """The task, with `items` questions of both splits, since no model is trained on them."""
  return Answers(name='trivia', questions=TRIVIA, splits=('train', 'heldout'), items=items, examples=EXAMPLES,
                 replying=Replying(tokens=24))


def get_config() -> Evaluation:
  return Evaluation(name='smollm2-trivia', run=smollm2(), tasks=(answers(260),))
