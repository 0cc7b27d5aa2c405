"""Pre-training of a Llama of 1.04 billion parameters on 25 billion tokens of web text.

  python -m experiments.launch --config=experiments/pretrain/llama_1b.py
  python -m experiments.launch --config=experiments/pretrain/llama_1b.py --dry_run --devices=8

For one machine with 8 GPUs of 80 GB, or a TPU v5e-16: parameters and optimizer state are sharded over all devices (FSDP). Not
run yet.
"""

from dataclasses import replace

from experiments.pretrain.web import web_tokens
from model.config import Compute
from model.sharding import MeshShape
from model.sizes import SIZES
from train.data.rows import Rows
from train.objectives import NextToken
from train.optimizer import AdamW, Optimizer
from train.run import Run, Saving, Watch
from train.schedule import Cosine


def get_config() -> Run:
  vocab = 32_768
  return Run(
      name='llama-1b',
      model=replace(SIZES['llama_1b'], vocab=vocab, compute_dtype='bfloat16', stream_dtype='bfloat16'),
      rows=Rows(web_tokens(vocab, 'train[:25%]'), length=2048),
      batch=512,
      steps=23_842,                     # x 512 x 2048 = 25 billion tokens
      objective=NextToken(z_loss=1e-4),
      optimizer=Optimizer(AdamW(lr=6e-4), Cosine(warmup=1000)),
      mesh=MeshShape(data=1, fsdp=-1),
      parts=16,
      compute=Compute(layers='scan', remat='dots'),
      watch=Watch(heldout=500, heldout_rows=1024, samples=2000),
      saving=Saving(every=500, keep=3),
  )
