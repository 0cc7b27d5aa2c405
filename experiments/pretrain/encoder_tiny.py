"""The recipe of `encoder.py` at a size that a laptop trains in a minute, to try it out.

  python -m experiments.launch --config=experiments/pretrain/encoder_tiny.py
"""

from dataclasses import replace

from experiments.pretrain.encoder import get_config as full
from experiments.pretrain.web import sample_tokens
from model.config import Compute, Decoder, Gated
from model.sizes import heads
from train.data.masking import Masking
from train.data.rows import Rows
from train.run import Run, Saving, Watch
from train.schedule import Linear


def get_config() -> Run:
  large, tokens = full(), sample_tokens()
  return replace(
      large, name='encoder-base-tiny',
      model=Decoder(tokens.vocabulary.size, width=64, layers=2, attention=heads(64, 2), mlp=Gated(176, 'gelu'),
                    causal=False),
      rows=Rows(tokens, length=64, masking=Masking()), batch=16, steps=60, parts=2, compute=Compute(),
      optimizer=replace(large.optimizer, schedule=Linear(warmup=6)), watch=Watch(heldout=30, heldout_rows=16),
      saving=Saving(every=30))
