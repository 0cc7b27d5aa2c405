"""What the peers in PyTorch share: the task's batches, a fused AdamW in two groups, and one step."""

import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from experiments.bench.task import BATCHES, TASK, WARM
from experiments.bench.worker import Sample, timed

torch.set_num_threads(os.cpu_count() or 1)


class TorchTrain:
  """Trains a model whose `logits(inputs)` are [B, L, V], in float32 or under autocast, eager or compiled."""

  def __init__(self, folder: Path, model: torch.nn.Module, logits: Callable[[Any], Any], dtype: str, compiled: bool):
    self.folder, self.model, self.index = folder, model.train(), 0

    def loss(inputs, targets):
      with torch.autocast('cpu', torch.bfloat16) if dtype == 'bfloat16' else nullcontext():
        return cross_entropy(logits(inputs).flatten(0, 1).float(), targets.flatten())

    self.loss = torch.compile(loss) if compiled else loss

  def prepare(self) -> dict[str, Any]:
    self.batches = torch.from_numpy(np.load(self.folder / BATCHES)).long()
    self.optimizer = adamw(self.model)
    return {'losses': [self.step()['loss'] for _ in range(WARM)], 'torch': torch.__version__,
            'threads': torch.get_num_threads()}

  def step(self) -> Sample:
    rows = self.batches[self.index % len(self.batches)]
    self.index += 1
    sample, loss = timed(lambda: self._update(rows[:, :-1].contiguous(), rows[:, 1:].contiguous()))
    return sample | {'loss': loss}

  def _update(self, inputs, targets) -> float:
    loss = self.loss(inputs, targets)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(self.model.parameters(), TASK.clip, foreach=True)
    self.optimizer.step()
    self.optimizer.zero_grad(set_to_none=True)
    return loss.item()


def adamw(model: torch.nn.Module) -> torch.optim.Optimizer:
  """Weight decay for all matrices but the embedding, as the task has it."""
  tables = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
  decayed = [p for p in model.parameters() if p.ndim > 1 and id(p) not in tables]
  others = [p for p in model.parameters() if p.ndim == 1 or id(p) in tables]
  groups = [{'params': decayed, 'weight_decay': TASK.weight_decay}, {'params': others, 'weight_decay': 0.0}]
  return torch.optim.AdamW(groups, lr=TASK.lr, betas=(TASK.b1, TASK.b2), eps=TASK.adam_eps, fused=True)
