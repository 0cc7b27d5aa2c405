"""The loss head in PyTorch as it comes, logits and all: `python -m experiments.bench.peers.torch_head eager|compiled`."""

import os
import sys
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from experiments.bench.task import TASK
from experiments.bench.worker import Sample, serve, timed

torch.set_num_threads(os.cpu_count() or 1)


class Head:
  """The mean loss of [B L, D] against V words, and its gradients."""

  def __init__(self, form: str):
    def mean(x, w, targets):
      return cross_entropy(x @ w, targets)

    self.mean = torch.compile(mean) if form == 'compiled' else mean

  def prepare(self) -> dict[str, Any]:
    torch.manual_seed(0)
    self.x = torch.randn(TASK.tokens, TASK.width, requires_grad=True)
    self.w = (0.02 * torch.randn(TASK.width, TASK.vocab)).requires_grad_()
    self.targets = torch.randint(0, TASK.vocab, (TASK.tokens,))
    self.step()
    return {'torch': torch.__version__}

  def step(self) -> Sample:
    return timed(self._once)[0]

  def _once(self) -> None:
    self.x.grad = self.w.grad = None
    self.mean(self.x, self.w, self.targets).backward()


if __name__ == '__main__':
  serve(Head(sys.argv[1]))
