"""The distillation of `sotu_tiny.py` from stored log-probs: the teacher's top 16 at each position, and the mass of the rest.

  python -m experiments.launch --config=experiments/distil/stored_tiny.py

Two CPU cores, minutes. The teacher runs once, beforehand, and is not in memory during training; its log-probs take 66 bytes a
token on disk.
"""

from dataclasses import replace

from experiments.distil.sotu_tiny import get_config as student
from experiments.quickstart.pretrain import TOKENS
from experiments.quickstart.pretrain import get_config as teacher
from train.distil import Distil, Stored
from train.run import Run
from train.stored_logits import StoredLogits
from train.taught_rows import TaughtRows


def get_config() -> Run:
  run = student()
  logits = StoredLogits(name='sotu-logits', by=teacher(), tokens=TOKENS, length=run.rows.length, k=16, temperature=2.0)
  return replace(run, name='sotu-student-stored', rows=TaughtRows(logits),
                 objective=Distil(Stored(), temperature=2.0, hard=0.5))
