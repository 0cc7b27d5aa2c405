"""The recipe of `llama_8b.py` at a size that a laptop trains in a minute, on one device, to try it out.

  python -m experiments.launch --config=experiments/pretrain/llama_8b_tiny.py
"""

from dataclasses import replace

from experiments.pretrain.llama_8b import get_config as full
from experiments.pretrain.web import sample_tokens
from model.sharding import MeshShape
from model.sizes import llama
from train.data.rows import Rows
from train.run import Run, Saving, Watch
from train.schedule import Cosine


def get_config() -> Run:
  large, tokens = full(), sample_tokens()
  return replace(
      large, name='llama-8b-tiny',
      model=llama(tokens.vocabulary.size, width=64, layers=4, count=4, kv=2),
      rows=Rows(tokens, length=64), batch=16, parts=2, steps=60, mesh=MeshShape(),
      optimizer=replace(large.optimizer, schedule=Cosine(warmup=6)), watch=Watch(heldout=30, heldout_rows=16),
      saving=Saving(every=30))
