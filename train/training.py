"""One life of a run: from its last save, or from nothing, to its last step.

This is where the parts meet. Each is built from the run's fields; none knows of the others.
"""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from model.generate import generate
from model.sampling import Sampling
from train.artifact import Store
from train.build import compiled, start
from train.checkpoint import Checkpoints
from train.edits import join
from train.environment import devices, environment
from train.eval.ceiling import peak
from train.flops import work_per_token
from train.hooks import Every, LeaveWhenAsked, Profile, Samples, preempted
from train.ledger import Ledger
from train.lock import Lock
from train.loop import run as loop
from train.metrics import Consumer, Guard, MetricsLog, Pace, Progress, Record, Recorder
from train.preemption import Preemption
from train.trained import beside, foundation, params_of
from train.types import Frozen, Hook, Params, Position, Setting, Source, State
from train.watchdog import Watchdog

if TYPE_CHECKING:
  from train.run import Run

Action = Callable[[int, State], None]
WITNESSED = ('loss', 'grad_norm')      # what the ledger keeps of each step


class Training:
  """Holds what one life needs; `stack` closes it all, also when the run ends badly."""

  def __init__(self, run: 'Run', folder: Path, store: Store, stack: ExitStack):
    self.run, self.folder, self.store, self.stack = run, folder, store, stack
    self.first = jax.process_index() == 0
    stack.enter_context(Lock(folder))
    self.built = run.build()
    stack.enter_context(jax.set_mesh(self.built.mesh))
    self.tokenizer = run.rows.vocabulary.load(store)
    self.saves = stack.enter_context(Checkpoints(folder / 'checkpoints', keep=run.saving.keep))
    self.preemption = stack.enter_context(Preemption())
    self.watchdog = stack.enter_context(Watchdog())

  def go(self) -> None:
    """Trains to the last step, and returns when that is saved."""
    state, self.frozen, position = self.restored()
    self.setting = Setting(self.run, self.store, self.built, self.tokenizer, self.frozen, {})
    self.source: Source = self.run.rows.open(self.setting)
    self.stack.callback(self.source.close)
    if position is not None:
      self.source.load(position)
    hooks = self.hooks(int(state.step))
    loop(state, self.frozen, compiled(self.built), self.source, self.run.steps, hooks)
    with self.watchdog.rest():
      self.saves.wait()
    if self.preemption.asked(self.run.steps + 1):
      raise preempted(self.run.steps)      # else what is made next would know nothing of it

  def restored(self) -> tuple[State, Frozen, Position | None]:
    """The newest verified save and the source's position; without one, the state at step 0 and None."""
    others = beside(self.run, self.store, jax.devices())
    saved = self.saves.restore(self.built.abstract)
    if saved is not None:
      state, host = saved
      frozen = foundation(self.run, self.built, self.store, jax.devices())[1] if self.built.frozen else {}
      return state, frozen | others, host['source']
    params, frozen = foundation(self.run, self.built, self.store, jax.devices())
    return start(self.built, self.run.seed, params), frozen | others, None

  def judged(self, state: State) -> Params:
    """The whole parameters for evaluation: the moving average if there is one, joined with what is frozen."""
    return join(params_of(state), self.frozen)

  def hooks(self, begin: int) -> list[Hook]:
    """In order: metrics, watchdog, held-out loss, samples, saves, leaving on a signal, a profile."""
    watch, last = self.run.watch, self.run.steps
    profile = Profile(self.folder, *watch.profile) if watch.profile and self.first else None
    if profile is not None:                # told of last of all, when the progress bar is gone
      self.stack.callback(profile.close)
    recorder = Recorder(self.consumers(begin))
    self.stack.callback(recorder.flush)
    hooks: list[Hook] = [recorder, lambda *_: self.watchdog.beat(), lambda *_: self.saves.check()]
    if watch.heldout:
      hooks.append(Every(watch.heldout, last, recorder, self.resting(self.heldout())))
    if watch.samples:
      samples = Samples(self.folder / 'samples.jsonl', watch.prompts, self.answer)
      hooks.append(Every(watch.samples, last, recorder, self.resting(samples)))
    hooks += [Every(self.run.saving.every, last, recorder, self.resting(self.save)),
              LeaveWhenAsked(self.preemption.asked, recorder, self.resting(self.leave))]
    return [*hooks, profile] if profile else hooks

  def resting(self, action: Action) -> Action:
    """The action, while which the watchdog rests: it may take longer than a step."""
    def act(step: int, state: State) -> None:
      with self.watchdog.rest():
        action(step, state)
    return act

  def consumers(self, begin: int) -> list[Consumer]:
    """Who gets the metrics of each step. Only the first process writes; all stop when they are not finite."""
    guard = Guard(self.folder, self.run.watch.skips, self.records)
    if not self.first:
      return [guard]
    ledger = self.stack.enter_context(Ledger(self.folder, self.circumstances()))
    pace = self.pace()
    self.metrics = MetricsLog(self.folder, self.run.watch.metrics, pace, self.rate)
    self.progress = Progress(self.run.steps, begin, pace)
    self.stack.callback(self.metrics.close)
    self.stack.callback(self.progress.close)

    def witness(record: Record) -> None:
      ledger.write(record.step, {name: float(record.values[name]) for name in WITNESSED})

    return [witness, guard, self.metrics, self.progress]

  def circumstances(self) -> dict[str, Any]:
    """All that the bits of a step depend on besides the run's config."""
    return environment() | devices() | {'mesh': dict(self.built.mesh.shape), 'parts': self.run.parts,
                                        'compute': repr(self.run.compute)}

  def pace(self) -> Pace:
    """Tokens and FLOPs of a step, and the peak of the machine."""
    flops = work_per_token(self.built, self.run.rows.length)
    return Pace(self.run.batch * self.run.rows.reads, flops, lambda: peak(self.run.model.compute_dtype))

  def rate(self, step: int) -> float:
    """The learning rate at a step: the rule's `lr` times the schedule."""
    optimizer = self.run.optimizer
    return optimizer.rule.lr * float(optimizer.schedule(self.run.steps)(step))

  def records(self, step: int) -> list[str]:
    """Where in the corpus each row of a step's batch comes from."""
    return [self.source.describe(row) for row in range((step - 1) * self.run.batch, step * self.run.batch)]

  def heldout(self):
    """An action that evaluates on held-out rows, with the averaged parameters if there are any, and logs the result."""
    evaluate = self.run.rows.evaluator(self.setting, self.run.watch.heldout_rows)

    def score(step: int, state: State) -> None:
      values = evaluate(self.judged(state))
      if self.first:
        self.metrics.write(step, values)
        self.progress.say(f'step {step}: ' + ', '.join(f'{name} {value:.3f}' for name, value in values.items()))

    return score

  def answer(self, state: State, prompts: tuple[str, ...]) -> list[str]:
    """A sampled continuation of each prompt; the key depends on the step alone."""
    tokenizer = self.tokenizer
    ids = [[tokenizer.bos, *tokenizer.encode(prompt)] for prompt in prompts]
    said = generate(self.built.model, self.judged(state), ids, max_new=self.run.watch.sample_tokens, sampling=Sampling(),
                    key=jax.random.key(int(state.step)), eos=tokenizer.eos, limit=tokenizer.size)
    return [tokenizer.decode(row.tolist()) for row in said.tokens]

  def save(self, step: int, state: State) -> None:
    """Begins a save; the last step's is waited for."""
    if step == self.run.steps:
      self.saves.wait()
    self.saves.save(step, state, {'source': self.source.save()})

  def leave(self, step: int, state: State) -> None:
    """Saves now and returns when that is done."""
    self.saves.wait()
    self.save(step, state)
    self.saves.wait()
