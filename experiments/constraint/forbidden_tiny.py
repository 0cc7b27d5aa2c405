"""A language model that unlearns to name years and keeps all else: a limit on forbidden content in training, and its price.

  python -m experiments.launch --config=experiments/constraint/forbidden_tiny.py
  python -m experiments.launch --config=experiments/constraint/forbidden_tiny.py --config.name=sotu-unpriced \\
      '--config.rows.multiplier=Penalty(price=0.0)'

It goes on from the quick start with the same text, in which 0.6% of the tokens are of years. They are read and not learnt, and
their mean charge -log(1 - p) may be 0.02 at most. The second command learns the other tokens as well, at no price for a year.

Result (2026-11-27, two cores that others shared, 4 min each after the parent); held out, but for the last column, the share of
year tokens in 256 texts of its own:

                         charge of a year     p of it     loss of the other tokens     own text
    the parent                 0.459           0.299              3.580                 0.76%
    not learnt, no price       0.171           0.139              3.521                 0.09%
    under the limit            0.022           0.022              3.522                 0.00%

The price rises to 8 nats for a charge of 1.
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
