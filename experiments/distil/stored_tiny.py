"""The student of `sotu_tiny.py`, whose teacher was asked once: its 16 likeliest ids at each place, and the mass of all others.

  python -m experiments.launch --config=experiments/distil/stored_tiny.py

Two CPU cores, minutes. No teacher is in memory while the student learns; its answers take 66 bytes a token on disk.
"""

from dataclasses import replace

from experiments.distil.sotu_tiny import get_config as beside
from experiments.quickstart.pretrain import TOKENS
from experiments.quickstart.pretrain import get_config as teacher
from train.distil import Distil, Stored
from train.run import Run
from train.stored_logits import StoredLogits
from train.taught_rows import TaughtRows


def get_config() -> Run:
  run = beside()
  logits = StoredLogits(name='sotu-logits', by=teacher(), tokens=TOKENS, length=run.rows.length, k=16, temperature=2.0)
  return replace(run, name='sotu-student-stored', rows=TaughtRows(logits),
                 objective=Distil(Stored(), temperature=2.0, hard=0.5))
