"""Continued pre-training of the 1B Llama on web text with a limit on the probability of personal data.

  python -m experiments.launch --config=experiments/constraint/forbidden_llama_1b.py

It trains on the text of `experiments/pretrain/llama_1b.py`, its parent, in which every e-mail address, phone, card and account
number is marked as forbidden. For one H100 (80 GB), once the parent is trained; not run yet. `forbidden_tiny.py` is the same
recipe for two CPU cores.
"""

from dataclasses import replace

from align.avoid import Avoid
from align.avoid_rows import AvoidRows
from align.constraint import PID
from align.forbidden import Personal
from align.marks import marked
from experiments.pretrain.llama_1b import get_config as parent
from model.sharding import MeshShape
from train.data.rows import Rows
from train.data.tokens import TokenFiles
from train.optimizer import AdamW, Optimizer
from train.run import Run, Saving, Watch
from train.schedule import Constant


def get_config() -> Run:
  before = parent()
  assert isinstance(before.rows, Rows) and isinstance(before.rows.tokens, TokenFiles)
  tokens = marked(before.rows.tokens, Personal(('email', 'iban', 'card', 'ssn', 'phone')))
  rows = AvoidRows(Rows(tokens, length=2048), most=0.02, multiplier=PID(20.0, 5.0), probe=64, every=20, written=16)
  return replace(before, name='llama-1b-private', restore=before, rows=rows, objective=Avoid(z_loss=1e-4), batch=64, parts=16,
                 steps=1000, optimizer=Optimizer(AdamW(lr=5e-5, weight_decay=0.0), Constant(warmup=20)), mesh=MeshShape(),
                 watch=Watch(heldout=100, heldout_rows=256), saving=Saving(every=200))
