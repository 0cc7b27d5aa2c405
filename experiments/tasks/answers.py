"""SmolLM2-135M-Instruct answers 260 questions of general knowledge: exact match and token F1, as SQuAD has them.

  python -m experiments.launch --config=experiments/tasks/answers.py

The questions come in the wheel `chatterbot-corpus` (BSD-3, 0.3 MB, pinned by sha256). Its file of customers' questions,
tech_support, is not used: of its 1,050 exchanges ten are different.
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
  """The task: nobody trains on these, so both sides are asked."""
  return Answers(name='trivia', questions=TRIVIA, splits=('train', 'heldout'), items=items, examples=EXAMPLES,
                 replying=Replying(tokens=24))


def get_config() -> Evaluation:
  return Evaluation(name='smollm2-trivia', run=smollm2(), tasks=(answers(260),))
