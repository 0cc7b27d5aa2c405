"""Pre-training of a Llama of 8 billion parameters on 155 billion tokens, one epoch of C4.

  python -m experiments.launch --config=experiments/pretrain/llama_8b.py --coordinator=HOST:PORT --processes=N \
    --process=I
  python -m experiments.launch --config=experiments/pretrain/llama_8b.py --dry_run --devices=256

For a cluster of 128 devices or more: parameters are sharded over 32 devices along `fsdp` and 4 along `tensor`, and each such
group of 128 takes its share of the batch. With 128 devices it takes about 51 GiB on each, for GPUs of 80 GB. Not run yet.
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
  vocab = 65_536
  return Run(
      name='llama-8b',
      model=replace(SIZES['llama_8b'], vocab=vocab, compute_dtype='bfloat16', stream_dtype='bfloat16'),
      rows=Rows(web_tokens(vocab, 'train'), length=4096),
      batch=1024,
      steps=36_955,                     # x 1024 x 4096 = 155 billion tokens
      objective=NextToken(z_loss=1e-4),
      optimizer=Optimizer(AdamW(lr=3e-4), Cosine(warmup=2000)),
      mesh=MeshShape(data=-1, fsdp=32, tensor=4),
      parts=8,
      compute=Compute(layers='scan', remat='dots'),
      watch=Watch(heldout=500, heldout_rows=2048, samples=2000),
      saving=Saving(every=250, keep=3),
  )
