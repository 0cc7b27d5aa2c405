"""One of two processes that lay a batch on a mesh of both: `python -m tests.data.lay_a_batch PORT INDEX`."""

import sys

import jax
import numpy as np

from model.sharding import MeshShape
from train.data.pipeline import Placement

BATCH = 8


def main(port: str, index: str) -> None:
  jax.distributed.initialize(f'127.0.0.1:{port}', 2, int(index))
  whole = np.arange(BATCH * 3).reshape(BATCH, 3)
  for shape in (MeshShape(), MeshShape(data=2, fsdp=2, tensor=2), MeshShape(fsdp=2, tensor=4), MeshShape(tensor=8)):
    placement = Placement(shape.build(), BATCH)
    batch = placement({'tokens': whole[placement.rows]})['tokens']
    assert batch.shape == whole.shape and len(batch.addressable_shards) == 4
    for shard in batch.addressable_shards:
      assert (np.asarray(shard.data) == whole[shard.index]).all()
    print('laid', flush=True)


if __name__ == '__main__':
  main(*sys.argv[1:])
