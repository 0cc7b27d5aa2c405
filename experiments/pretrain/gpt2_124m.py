"""Pre-training of GPT-2 124M on 10 billion tokens of web text, with bfloat16 matmuls.

  python -m experiments.launch --config=experiments/pretrain/gpt2_124m.py

For one H100; not run yet. `gpt2_124m_tiny.py` is the same recipe at a small size.
"""

from dataclasses import replace

from experiments.pretrain.web import web_tokens
from model.config import Compute
from model.sizes import SIZES
from train.data.rows import Rows
from train.objectives import NextToken
from train.optimizer import AdamW, Muon, Optimizer
from train.run import Run, Saving, Watch
from train.schedule import WSD


def get_config() -> Run:
  vocab = 50_304                        # GPT-2's 50,257 rounded up to a multiple of 128
  return Run(
      name='gpt2-124m',
      model=replace(SIZES['gpt2_124m'], vocab=vocab, compute_dtype='bfloat16', stream_dtype='bfloat16'),
      rows=Rows(web_tokens(vocab, 'train[:10%]'), length=1024),
      batch=512,
      steps=19_073,                     # x 512 x 1024 = 10 billion tokens
      objective=NextToken(z_loss=1e-4),
      optimizer=Optimizer(Muon(lr=3e-3, others=AdamW(lr=3e-3)), WSD(warmup=250, decay=0.3)),
      parts=8,
      compute=Compute(layers='unroll'),
      watch=Watch(heldout=250, heldout_rows=1024, samples=1000),
      saving=Saving(every=500, keep=3),
  )
