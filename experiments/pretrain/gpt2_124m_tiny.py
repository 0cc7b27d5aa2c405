"""The recipe of `gpt2_124m.py` at a size that a laptop trains in a minute, to try it out.

  python -m experiments.launch --config=experiments/pretrain/gpt2_124m_tiny.py
"""

from dataclasses import replace

from experiments.pretrain.gpt2_124m import get_config as full
from experiments.pretrain.web import sample_tokens
from model.config import Compute
from model.sizes import gpt2
from train.data.rows import Rows
from train.run import Run, Saving, Watch
from train.schedule import WSD


def get_config() -> Run:
  large, tokens = full(), sample_tokens()
  return replace(
      large, name='gpt2-124m-tiny',
      model=replace(gpt2(width=64, layers=2, count=2), vocab=tokens.vocabulary.size),
      rows=Rows(tokens, length=64), batch=8, steps=60, parts=2, compute=Compute(),
      optimizer=replace(large.optimizer, schedule=WSD(warmup=6, decay=0.3)), watch=Watch(heldout=30, heldout_rows=16),
      saving=Saving(every=30))
