"""The loss head in PyTorch as it comes, logits and all: `... peers.torch_head TASK DTYPE eager|compiled`."""

import sys
from contextlib import nullcontext
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from experiments.bench.peers.torch_step import DEVICE
from experiments.bench.task import TASKS, Task
from experiments.bench.worker import Sample, serve, timed


class Head:
  """The mean loss of [B L, D] against V words, and its gradients: x in the type of the product, w in float32."""

  def __init__(self, task: Task, dtype: str, form: str):
    self.task, self.dtype = task, getattr(torch, dtype)

    def mean(x, w, targets):
      with torch.autocast(DEVICE, torch.bfloat16) if dtype == 'bfloat16' else nullcontext():
        return cross_entropy(x @ w, targets)

    self.mean = torch.compile(mean) if form == 'compiled' else mean

  def prepare(self) -> dict[str, Any]:
    torch.manual_seed(0)
    task = self.task
    self.x = torch.randn(task.tokens, task.width).to(DEVICE, self.dtype).requires_grad_()
    self.w = (0.02 * torch.randn(task.width, task.vocab)).to(DEVICE).requires_grad_()
    self.targets = torch.randint(0, task.vocab, (task.tokens,)).to(DEVICE)
    self.step()
    return {'torch': torch.__version__}

  def step(self) -> Sample:
    return timed(self._once)[0]

  def _once(self) -> None:
    self.x.grad = self.w.grad = None
    self.mean(self.x, self.w, self.targets).backward()
    if DEVICE == 'cuda':
      torch.cuda.synchronize()


if __name__ == '__main__':
  name, dtype, form = sys.argv[1:]
  serve(Head(TASKS[name], dtype, form))
