"""TRL's GRPOTrainer, an iteration at a time: `python -m experiments.bench.peers.trl_grpo FOLDER TASK`.

It samples with Hugging Face's generate and its cache, reads the answers once for their old log-probs, and learns from them
in as many steps as we do; there is no reference. The reward is the length of an answer's text. No answer may end early:
`min_new_tokens` is `max_new_tokens`.
"""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from experiments.bench.peers.trl_step import Trained, llama, settings, versions, words
from experiments.bench.task import ITERATIONS, ROLLOUTS, TASKS, Iteration, Task
from experiments.bench.worker import Sample, serve, timed

PROMPTS = 512


def trainer(folder: Path, task: Task, it: Iteration) -> GRPOTrainer:
  """Its generation and its updates are of as many answers as ours."""
  random = np.random.default_rng(0)
  prompts = [' '.join(f'w{i}' for i in random.integers(3, task.vocab, it.prompt)) for _ in range(PROMPTS)]
  args = GRPOConfig(**settings(
      folder, per_device_train_batch_size=it.batch, steps_per_generation=it.answers // it.batch, num_generations=it.group,
      max_completion_length=it.answer, generation_kwargs={'min_new_tokens': it.answer}, beta=0.0, loss_type='grpo',
      num_iterations=1, temperature=1.0, top_k=0))
  return GRPOTrainer(model=llama(task), args=args, processing_class=words(task), reward_funcs=characters,
                     train_dataset=Dataset.from_dict({'prompt': prompts}))


def characters(completions: list[str], **_: Any) -> list[float]:
  return [float(len(text)) for text in completions]


class Grpo:
  """Each step is a whole iteration; its sample has the seconds of sampling, of reading and judging, and of the updates."""

  def __init__(self, folder: Path, task: Task, it: Iteration):
    self.folder, self.it, self.seconds = folder, it, {'sampling': 0.0, 'rollout': 0.0}
    self.trainer = trainer(folder, task, it)
    self.trained = Trained(folder, task, self.trainer)
    self._count('_generate_single_turn', 'sampling')
    self._count('_prepare_inputs', 'rollout')

  def prepare(self) -> dict[str, Any]:
    self.trained.begin()
    losses = [self._learnt(batch) for batch in 2 * self._compared()]
    self.trained.begin()
    self.prompts = iter(self.trainer.get_train_dataloader())
    self.step()
    return {'losses': losses, **versions()}

  def step(self) -> Sample:
    self.seconds = dict.fromkeys(self.seconds, 0.0)
    sample, loss = timed(self._iteration)
    sampling, rollout = self.seconds['sampling'], self.seconds['rollout']
    tokens = sum(int(batch['completion_mask'].sum()) for batch in self.trainer._buffered_inputs)
    return sample | {'sampling': sampling, 'scoring and judging': rollout - sampling, 'update': sample['wall'] - rollout,
                     'loss': loss, 'answer_tokens': float(tokens)}

  def _iteration(self) -> float:
    for _ in range(self.it.answers // self.it.batch):
      loss = self.trained.updated(self.trainer.training_step(self.trainer.model, next(self.prompts), None))
    return loss

  def _learnt(self, batch: dict[str, torch.Tensor]) -> float:
    """The loss of a batch that was sampled elsewhere, learnt."""
    loss = self.trainer.compute_loss(self.trainer.model, batch)
    loss.backward()
    return self.trained.updated(loss.detach())

  def _compared(self) -> list[dict[str, torch.Tensor]]:
    """The rollout that our side left."""
    with np.load(self.folder / ROLLOUTS) as held:
      steps = zip(*(torch.from_numpy(held[name]) for name in ('tokens', 'mask', 'advantage', 'logp')))
      at = self.it.prompt
      return [{'prompt_ids': tokens[:, :at].long(), 'prompt_mask': torch.ones_like(tokens[:, :at]).long(),
               'completion_ids': tokens[:, at:].long(), 'completion_mask': mask[:, at:].long(),
               'advantages': advantage[:, at], 'old_per_token_logps': logp[:, at:]}
              for tokens, mask, advantage, logp in steps]

  def _count(self, name: str, phase: str) -> None:
    """Counts the seconds of one of the trainer's methods."""
    inner = getattr(self.trainer, name)

    def counted(*arguments: Any, **more: Any) -> Any:
      begin = time.perf_counter()
      found = inner(*arguments, **more)
      self.seconds[phase] += time.perf_counter() - begin
      return found

    setattr(self.trainer, name, counted)


if __name__ == '__main__':
  place, name = sys.argv[1:]
  serve(Grpo(Path(place), TASKS[name], ITERATIONS[name]))
