"""On-policy distillation (Agarwal et al. 2023): a student learns from its teacher's log-probs on its own answers.

  python -m experiments.launch --config=experiments/distil/on_policy_tiny.py

The teacher is `experiments/grpo/largest_tiny.py`, which learned by GRPO which of four numbers is the largest; the student
starts from that run's parent, which guesses. In each step the student answers 64 problems, and the loss is the reverse KL to
the teacher's distribution at each token. Two CPU cores, minutes; the teacher is trained first if it is not there.

Result (2026-11-27, two cores beside another training; one seed): of 256 held-out problems the student answers 18.8% rightly
before, and 98.8% after 100 steps, the same as its teacher, which took 150 steps of 256 answers and a verifier.
"""

from align.on_policy import OnPolicy
from align.questions import FromTask
from align.rewards import Part, Verified
from align.stages import Stage, Stages
from experiments.grpo.largest_tiny import TASK, VOCABULARY, guesser
from experiments.grpo.largest_tiny import get_config as teacher
from model.chat import Plain
from train.distil import Distil, Reverse
from train.optimizer import AdamW, Optimizer
from train.run import Run, Saving, Watch
from train.schedule import Constant


def student() -> Run:
  """The student's training run."""
  parent = guesser()
  rows = OnPolicy(questions=FromTask(TASK), vocabulary=VOCABULARY, template=Plain(), prompt_tokens=56, answer_tokens=8)
  return Run(name='largest-student', model=parent.model, restore=parent, rows=rows, objective=Distil(teacher(), Reverse()),
             batch=64, steps=100, optimizer=Optimizer(AdamW(lr=1e-3, weight_decay=0.0), Constant()),
             watch=Watch(heldout=25, heldout_rows=64, metrics=5), saving=Saving(every=50))


def get_config() -> Stages:
  stages = (Stage('guesser', guesser()), Stage('student', student()), Stage('teacher', teacher()))
  return Stages(name='largest-distilled', stages=stages, against='guesser', questions=FromTask(TASK), template=Plain(),
                judges=(Part('right', Verified(TASK)),), answers=256, prompt_tokens=56, answer_tokens=8)
