"""TRL's SFTTrainer and DPOTrainer on our batches: `python -m experiments.bench.peers.trl_tune FOLDER TASK sft|dpo`.

The log-probs of DPO's reference are columns of the batch, as `precompute_ref_log_probs` makes them.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from experiments.bench.peers.trl_step import Trained, llama, settings, versions, words
from experiments.bench.task import BATCHES, BETA, PAIRS, TASKS, WARM, Task
from experiments.bench.worker import Sample, serve, timed

Batch = dict[str, torch.Tensor]


def sft(folder: Path, task: Task) -> SFTTrainer:
  """Its dataset is a word: batches come to its step as its collator would make them of our rows."""
  return SFTTrainer(model=llama(task), args=SFTConfig(**settings(folder)), processing_class=words(task),
                    train_dataset=Dataset.from_dict({'prompt': ['w5'], 'completion': ['w6']}))


def dpo(folder: Path, task: Task) -> DPOTrainer:
  args = DPOConfig(**settings(folder, beta=BETA, precompute_ref_log_probs=True))
  return DPOTrainer(model=llama(task), args=args, processing_class=words(task),
                    train_dataset=Dataset.from_dict({'prompt': ['w5'], 'chosen': ['w6'], 'rejected': ['w7']}))


def rows(folder: Path, task: Task) -> list[Batch]:
  """input_ids, attention_mask and labels [B, L + 1]."""
  found = []
  for tokens in np.load(folder / BATCHES).astype(np.int64):
    ids = torch.from_numpy(tokens)
    labels = ids.clone()
    labels[:, :task.prompt] = -100
    found.append({'input_ids': ids, 'attention_mask': torch.ones_like(ids), 'labels': labels})
  return found


def pairs(folder: Path, task: Task) -> list[Batch]:
  """All chosen sides, then all rejected ones, [2 B, L]."""
  with np.load(folder / PAIRS) as held:
    drawn = list(zip(held['tokens'].astype(np.int64), held['reference']))
  found = []
  for tokens_BPL, reference_BP in drawn:
    ids = torch.from_numpy(tokens_BPL.swapaxes(0, 1).reshape(-1, tokens_BPL.shape[-1]).copy())
    answers = (torch.arange(ids.shape[1]) >= task.prompt).long().expand(ids.shape)
    chosen, rejected = torch.from_numpy(reference_BP.copy()).T
    found.append({'input_ids': ids, 'attention_mask': torch.ones_like(ids), 'completion_mask': answers,
                  'ref_chosen_logps': chosen, 'ref_rejected_logps': rejected})
  return found


class Tune:
  """The step on batches in memory."""

  def __init__(self, folder: Path, task: Task, kind: str):
    self.trained = Trained(folder, task, (sft if kind == 'sft' else dpo)(folder, task))
    self.batches, self.index = (rows if kind == 'sft' else pairs)(folder, task), 0

  def prepare(self) -> dict[str, Any]:
    self.trained.begin()
    return {'losses': [self.step()['loss'] for _ in range(WARM)], **versions()}

  def step(self) -> Sample:
    batch = self.batches[self.index % len(self.batches)]
    self.index += 1
    sample, loss = timed(lambda: self.trained.taken(batch))
    return sample | {'loss': loss}


if __name__ == '__main__':
  place, name, kind = sys.argv[1:]
  serve(Tune(Path(place), TASKS[name], kind))
