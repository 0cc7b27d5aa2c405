"""Our iteration of RLHF, phase by phase: `python -m experiments.bench.ours.rlhf FOLDER TASK ppo|grpo`.

The run is opened as a training opens it, and a step here is an iteration: its source samples, reads, judges and deals out
batches, and the compiled step learns from each. Nothing of that is written again here: what takes part in a rollout is
wrapped where the crew holds it, and its seconds are counted. All of these give numbers of the host, so they have waited
for the device when they return.

    sampling    answers written, and their text        reference   read by the reference, for the price of distance
    scoring     read by the policy and its critic      judging     read by the reward model, or whatever gives rewards
    update      the steps that learn from them         host        all else: prompts, rows, credit, batches

Letters: B rows, T positions.
"""

import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from align.rollout_source import Crew, RolloutSource
from experiments.bench.ours.lineage import Lineage
from experiments.bench.ours.model import export
from experiments.bench.task import INITIAL, ITERATIONS, ROLLOUTS, TASKS, Iteration, Task
from experiments.bench.worker import Sample, serve, timed
from train.artifact import Store, parents
from train.build import compiled, start
from train.objectives import SEEN
from train.run import Run
from train.trained import foundation
from train.types import Batch, Setting

PHASES = ('sampling', 'scoring', 'reference', 'judging', 'update')      # and the rest on the host
MOVED = 0.1                            # nats: how far the old log-probs that are compared lie from those of the policy
COMPARED = ('tokens', 'mask', 'advantage', 'logp')

Seconds = defaultdict[str, float]
Phase = str | Callable[..., str]


class Counted:
  """The same thing, whose calls are counted: their seconds go to a phase, which may depend on the arguments."""

  def __init__(self, inner: Any, phase: Phase, seconds: Seconds):
    self.inner, self.phase, self.seconds = inner, phase, seconds

  def __call__(self, *arguments: Any) -> Any:
    begin = time.perf_counter()
    found = self.inner(*arguments)
    self.seconds[self.phase if isinstance(self.phase, str) else self.phase(*arguments)] += time.perf_counter() - begin
    return found

  def __getattr__(self, name: str) -> Any:
    return getattr(self.inner, name)


def watch(crew: Crew, seconds: Seconds) -> None:
  """Counts what the crew does from now on."""
  def whose(params: Any, *rest: Any) -> str:
    return 'reference' if params is kept else 'scoring'

  watched: Any = crew
  kept = crew.kept if crew.kept is not None else object()
  watched.writer = Counted(crew.writer, 'sampling', seconds)
  watched.reader = Counted(crew.reader, whose, seconds)
  watched.jury = Counted(crew.jury, 'judging', seconds)


class Rlhf:
  """Each step is a whole iteration; its sample has the seconds of every phase, which add up to `wall`."""

  def __init__(self, folder: Path, task: Task, iteration: Iteration, kind: str):
    self.folder, self.task, self.kind = folder, task, kind
    lineage = Lineage(task, iteration)
    self.run: Run = lineage.ppo if kind == 'ppo' else lineage.grpo
    self.seconds: Seconds = defaultdict(float)

  def prepare(self) -> dict[str, Any]:
    self.open()
    found = {'losses': self._compared()} if self.kind == 'grpo' else {}
    self.step()
    buffer = self.source.buffer
    return found | {'rows': list(buffer['tokens'].shape), 'sampler_gap': float(buffer[f'{SEEN}sampler_gap'].max())}

  def step(self) -> Sample:
    self.seconds.clear()
    with jax.set_mesh(self.built.mesh):
      sample, loss = timed(self._iteration)
    phases = {name: self.seconds[name] for name in PHASES}
    phases['host'] = sample['wall'] - sum(phases.values())
    return sample | phases | {'loss': loss, 'answer_tokens': float(self.source.buffer['mask'].sum())}

  def open(self) -> None:
    """Makes the lineage and opens the run, as `train.training` does."""
    store = Store(self.folder / 'runs')
    for parent in parents(self.run):
      store.make(parent)
    devices = jax.devices()[:1]
    self.built = self.run.build(devices)
    with jax.set_mesh(self.built.mesh):
      self.params, self.frozen = foundation(self.run, self.built, store, devices)
      tokenizer = self.run.rows.vocabulary.load(store)
      source = self.run.rows.open(Setting(self.run, store, self.built, tokenizer, self.frozen, {}))
    assert isinstance(source, RolloutSource)
    watch(source.crew, self.seconds)
    step = compiled(self.built)
    self.update = Counted(lambda *arguments: jax.block_until_ready(step(*arguments)), 'update', self.seconds)
    self.source, self.state = source, start(self.built, self.run.seed, self.params)

  def _iteration(self) -> float:
    """The last loss of an iteration."""
    for _ in range(self.source.batches):
      batch = self.source(self.state)
      self.state, metrics = self.update(self.state, self.frozen, batch)
    return float(metrics['loss'].value())

  def _compared(self) -> list[float]:
    """The losses of a rollout that is learnt from twice, its old log-probs moved a little so that ratios are not 1.

    Leaves it and the initial parameters for a peer, and begins again.
    """
    export(self.state.params, self.folder / INITIAL, self.task)
    with jax.set_mesh(self.built.mesh):
      batches = [moved(self.source(self.state), number) for number in range(self.source.batches)]
      left: dict[str, Any] = {name: np.stack([batch[name] for batch in batches]) for name in COMPARED}
      np.savez(self.folder / ROLLOUTS, **left)
      losses = []
      for batch in 2 * batches:
        self.state, metrics = self.update(self.state, self.frozen, batch)
        losses.append(float(metrics['loss'].value()))
    self.state = start(self.built, self.run.seed, self.params)
    return losses


def moved(batch: Batch, seed: int) -> Batch:
  """The batch with other old log-probs."""
  noise_BT = np.random.default_rng(seed).normal(0, MOVED, batch['logp'].shape).astype(np.float32)
  return batch | {'logp': batch['logp'] + noise_BT}


if __name__ == '__main__':
  place, name, kind = sys.argv[1:]
  program = Rlhf(Path(place), TASKS[name], ITERATIONS[name], kind)
  serve(program)
  program.source.close()               # its threads would keep the process alive
