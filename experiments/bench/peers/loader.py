"""Batches from the same file of tokens by the shortest means: `... peers.loader FOLDER numpy|torch`.

numpy gathers rows at random places of the mapped file; torch does so in a Dataset behind a DataLoader that has no
workers. Neither knows documents, epochs or positions to resume from.
"""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from experiments.bench.task import TASK
from experiments.bench.worker import Sample, serve, spree

SPREE = 200


class Loader:
  """Each step takes many batches; the seconds are those of one."""

  def __init__(self, folder: Path, form: str):
    self.ids = np.load(folder / 'train.npy', mmap_mode='r')
    self.batches = batches_of_torch(self.ids) if form == 'torch' else batches_of_numpy(self.ids)

  def prepare(self) -> dict[str, Any]:
    self.step()
    return {}

  def step(self) -> Sample:
    return spree(lambda: next(self.batches), SPREE)


def batches_of_numpy(ids):
  """i32[B, L + 1] at random."""
  random, width = np.random.default_rng(0), np.arange(TASK.length + 1)
  while True:
    starts = random.integers(0, len(ids) - len(width), TASK.batch)
    yield ids[starts[:, None] + width].astype(np.int32)


def batches_of_torch(ids):
  """i64[B, L + 1] from a shuffling DataLoader, epoch after epoch."""
  import torch
  torch.set_num_threads(os.cpu_count() or 1)
  width = TASK.length + 1

  class Dataset(torch.utils.data.Dataset):
    def __len__(self):
      return len(ids) // width

    def __getitem__(self, index):
      return torch.from_numpy(ids[index * width:(index + 1) * width].astype(np.int64))

  while True:
    yield from torch.utils.data.DataLoader(Dataset(), batch_size=TASK.batch, shuffle=True, drop_last=True)


if __name__ == '__main__':
  folder, form = sys.argv[1:]
  serve(Loader(Path(folder), form))
