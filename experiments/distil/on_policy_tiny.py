"""A model that only guesses learns from one that knows, on its own answers: on-policy distillation (Agarwal et al. 2023).

  python -m experiments.launch --config=experiments/distil/on_policy_tiny.py

The teacher is `experiments/grpo/largest_tiny.py`, which learnt from reward alone which of four numbers is the largest; the
student begins as the parent of that. Each step the student answers 64 problems, and the teacher says of each token what it
would rather have said. Two CPU cores, minutes beside the teacher, which is trained first if it is not there.

Result (2026-11-27, two cores beside another training; one seed): of 256 held-out problems the student answers 18.8% rightly
before, and 98.8% after 100 steps, as many as its teacher does, which took 150 steps of 256 answers and a verifier.
"""

from align.on_policy import OnPolicy
from align.questions import FromTask
from align.rewards import Part, Verified
from align.stages import Stage, Stages
from experiments.grpo.largest_tiny import TASK, VOCABULARY, guesser
from experiments.grpo.largest_tiny import get_config as knowing
from model.chat import Plain
from train.distil import Distil, Reverse
from train.optimizer import AdamW, Optimizer
from train.run import Run, Saving, Watch
from train.schedule import Constant


def student() -> Run:
  """The run."""
  parent = guesser()
  rows = OnPolicy(questions=FromTask(TASK), vocabulary=VOCABULARY, template=Plain(), prompt_tokens=56, answer_tokens=8)
  return Run(name='largest-student', model=parent.model, restore=parent, rows=rows, objective=Distil(knowing(), Reverse()),
             batch=64, steps=100, optimizer=Optimizer(AdamW(lr=1e-3, weight_decay=0.0), Constant()),
             watch=Watch(heldout=25, heldout_rows=64, metrics=5), saving=Saving(every=50))


def get_config() -> Stages:
  stages = (Stage('guesser', guesser()), Stage('student', student()), Stage('teacher', knowing()))
  return Stages(name='largest-distilled', stages=stages, against='guesser', questions=FromTask(TASK), template=Plain(),
                judges=(Part('right', Verified(TASK)),), answers=256, prompt_tokens=56, answer_tokens=8)
