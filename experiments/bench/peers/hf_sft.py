"""Hugging Face's Llama learning answers alone: `python -m experiments.bench.peers.hf_sft FOLDER TASK eager|compiled`.

Targets in the prompt are -100, which is how its loss and every tutorial leave them out.
"""

import sys
from pathlib import Path

import torch

from experiments.bench.peers.hf import HuggingFace
from experiments.bench.task import TASKS
from experiments.bench.worker import Sample, serve


class Answers(HuggingFace):
  """In float32, from our initial parameters, a step at a time."""

  def step(self) -> Sample:
    return self._take(1)

  def pair(self, rows) -> tuple[torch.Tensor, torch.Tensor]:
    inputs, targets = super().pair(rows)
    targets[:, :self.task.prompt - 1] = -100           # position t foretells token t + 1
    return inputs, targets


if __name__ == '__main__':
  folder, name, form = sys.argv[1:]
  serve(Answers(Path(folder), TASKS[name], 'float32', form))
