"""Unlearning by a constraint: a language model stops writing years, while its loss on other tokens does not rise.

  python -m experiments.launch --config=experiments/constraint/forbidden_tiny.py
  python -m experiments.launch --config=experiments/constraint/forbidden_tiny.py --config.name=sotu-unpriced \\
      '--config.rows.multiplier=Penalty(price=0.0)'

It continues the quick start on the same text, in which 0.6% of the tokens belong to years. These are inputs but not targets,
and a Lagrange multiplier keeps their mean cost -log(1 - p) (unlikelihood) at 0.02 or less. The second command is the control:
years are not targets, and the multiplier is 0.

Two shared CPU cores, 4 min each; the quick start is trained first if it is not there.

Result (2026-11-27), on held-out text; the last column is the share of year tokens in 256 sampled texts:

                         cost of a year       p of it     loss of the other tokens     samples
    the parent                 0.459           0.299              3.580                 0.76%
    no targets, multiplier 0   0.171           0.139              3.521                 0.09%
    under the limit            0.022           0.022              3.522                 0.00%

The multiplier rises to 8.
"""

from dataclasses import replace

from align.avoid import Avoid
from align.avoid_rows import AvoidRows
from align.constraint import PID
from align.forbidden import Patterns
from align.marks import marked
from experiments.quickstart.pretrain import TOKENS
from experiments.quickstart.pretrain import get_config as parent
from train.data.rows import Rows
from train.optimizer import AdamW, Optimizer
from train.run import Run, Saving, Watch
from train.schedule import Constant

YEARS = Patterns((r'\b(?:1[789]|20)\d\d\b',))


def get_config() -> Run:
  before = parent()
  rows = AvoidRows(Rows(marked(TOKENS, YEARS), length=256), most=0.02, multiplier=PID(20.0, 5.0), written=64)
  return replace(before, name='sotu-no-years', restore=before, rows=rows, objective=Avoid(), steps=300,
                 optimizer=Optimizer(AdamW(lr=1e-3), Constant(warmup=10)),
                 watch=Watch(heldout=50, heldout_rows=256), saving=Saving(every=100))
