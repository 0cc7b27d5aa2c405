"""The same as `smollm2.py` in a few minutes on two cores: 20 steps of four rows of 64 tokens.

  python -m experiments.launch --config=experiments/distil/smollm2_tiny.py

Result (2026-11-27, two cores shared with many other processes: 7 min 30 s, without a teacher 2 min): the loss on answers is
15.0 nats a token in the first batch; after 20 steps it is 7.461 on 16 held-out rows (2.474 bits a byte), and 7.618 (2.526)
without a teacher (`--config.objective='NextToken()'`). The student is far from usable: it saw 5,000 tokens.
"""

from dataclasses import replace

from experiments.distil.smollm2 import get_config as large
from train.data.rows import Rows
from train.optimizer import AdamW, Optimizer
from train.run import Run, Saving, Watch
from train.schedule import Linear


def get_config() -> Run:
  full = large()
  assert isinstance(full.rows, Rows)
  return replace(full, name='smollm2-student-tiny', rows=replace(full.rows, length=64), batch=4, steps=20,
                 optimizer=Optimizer(AdamW(lr=5e-4), Linear(warmup=3)),
                 watch=Watch(heldout=10, heldout_rows=16, metrics=1), saving=Saving(every=0))
