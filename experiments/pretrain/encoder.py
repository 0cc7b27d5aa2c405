"""Pre-training of a masked-LM encoder of the size of BERT base, on 10 billion tokens of web text.

  python -m experiments.launch --config=experiments/pretrain/encoder.py

With rotary positions, pre-norm and gated MLPs, as in ModernBERT (Warner et al. 2024). For one H100; not run yet.
"""

from experiments.pretrain.web import web_tokens
from model.config import Compute, Decoder, Gated
from model.sizes import heads
from train.data.masking import Masking
from train.data.rows import Rows
from train.objectives import MaskedLM
from train.optimizer import AdamW, Optimizer
from train.run import Run, Saving, Watch
from train.schedule import Linear


def get_config() -> Run:
  vocab = 32_768
  return Run(
      name='encoder-base',
      model=Decoder(vocab, width=768, layers=12, attention=heads(768, 12), mlp=Gated(2048, 'gelu'), causal=False,
                    compute_dtype='bfloat16', stream_dtype='bfloat16'),
      rows=Rows(web_tokens(vocab, 'train[:10%]'), length=512, masking=Masking()),
      batch=512,
      steps=40_000,                     # x 512 x 512 = 10 billion tokens
      objective=MaskedLM(),
      optimizer=Optimizer(AdamW(lr=8e-4, weight_decay=0.01), Linear(warmup=2000)),
      parts=4,
      compute=Compute(layers='unroll'),
      watch=Watch(heldout=500, heldout_rows=1024),
      saving=Saving(every=500, keep=3),
  )
