"""What the peers in PyTorch share: the task's batches, a fused AdamW in two groups, and one step, on a GPU if one is here."""

import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from experiments.bench.task import BATCHES, TASKS, WARM, Task
from experiments.bench.worker import Sample, serve, shared, timed

torch.set_num_threads(os.cpu_count() or 1)
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'


class TorchTrain:
  """Trains a model whose `logits(inputs)` are [B, L, V], in float32 or under autocast, eager or compiled."""

  def __init__(self, folder: Path, task: Task, model: torch.nn.Module, logits: Callable[[Any], Any], dtype: str,
               compiled: bool):
    self.folder, self.task, self.model, self.index = folder, task, model.to(DEVICE).train(), 0

    def loss(inputs, targets):
      with torch.autocast(DEVICE, torch.bfloat16) if dtype == 'bfloat16' else nullcontext():
        return cross_entropy(logits(inputs).flatten(0, 1).float(), targets.flatten())

    self.loss = torch.compile(loss) if compiled else loss

  def prepare(self) -> dict[str, Any]:
    self.batches = torch.from_numpy(np.load(self.folder / BATCHES)).long().to(DEVICE)
    self.optimizer = adamw(self.model, self.task)
    return {'losses': [self._take(1)['loss'] for _ in range(WARM)], 'torch': torch.__version__,
            'threads': torch.get_num_threads(), 'device': DEVICE, **memory()}

  def step(self) -> Sample:
    return self._take(self.task.burst)

  def _take(self, count: int) -> Sample:
    """So many steps, of which only the last is waited for."""
    rows = [self.batches[(self.index + i) % len(self.batches)] for i in range(count)]
    self.index += count
    pairs = [self.pair(each) for each in rows]
    sample, loss = timed(lambda: [self._update(*pair) for pair in pairs][-1].item())      # waits for the device
    return shared(sample, count) | {'loss': loss}

  def pair(self, rows) -> tuple[torch.Tensor, torch.Tensor]:
    """What the model reads of rows, and what it should say; -100 where nothing is learnt."""
    return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()

  def _update(self, inputs, targets) -> torch.Tensor:
    loss = self.loss(inputs, targets)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.task.clip, foreach=True)
    self.optimizer.step()
    self.optimizer.zero_grad(set_to_none=True)
    return loss.detach()


def main(contestant: Callable[[Path, Task, str, str], TorchTrain]) -> None:
  """Serves it: `FOLDER TASK DTYPE eager|compiled [compile]`.

  With `compile` it takes its first steps from parameters of its own, which leaves what torch.compile keeps in its cache.
  """
  folder, name, dtype, form, *only = sys.argv[1:]
  program = contestant(Path(folder), TASKS[name], dtype, form)
  if only:
    TorchTrain.prepare(program)
  else:
    serve(program)


def memory() -> dict[str, float]:
  """The most that the device held so far."""
  return {'peak_gb': torch.cuda.max_memory_allocated() / 1e9} if DEVICE == 'cuda' else {}


def adamw(model: torch.nn.Module, task: Task) -> torch.optim.Optimizer:
  """Weight decay for all matrices but the embedding, as the task has it."""
  tables = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
  decayed = [p for p in model.parameters() if p.ndim > 1 and id(p) not in tables]
  others = [p for p in model.parameters() if p.ndim == 1 or id(p) in tables]
  groups = [{'params': decayed, 'weight_decay': task.weight_decay}, {'params': others, 'weight_decay': 0.0}]
  return torch.optim.AdamW(groups, lr=task.lr, betas=(task.b1, task.b2), eps=task.adam_eps, fused=True)
