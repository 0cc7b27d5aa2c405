"""The law that a training that was stopped and resumed is, to the bit, one that never stopped; for any training.

`live(folder)` trains what is left in a folder under `folder` and returns the run's own folder, which holds
`ledger.jsonl` and `checkpoints/`. It must ask `Preemption.asked` once a step, save when told to leave, and raise a
UserError with exit code 75.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp

from model.errors import PREEMPTED, UserError
from train.checkpoint import Checkpoints
from train.ledger import LEDGER, compare
from train.preemption import Preemption
from train.saving import shelf
from train.types import State

Live = Callable[[Path], Path]
Saved = tuple[State, dict[str, Any]]
Forget = Callable[[Saved, Saved], Saved]      # (what is restored, the first save of the straight run) -> what is used


class Straight(NamedTuple):
  """The folder of a run that never stopped, and what it saved first."""

  folder: Path
  first: Saved


def resumed(live: Live, straight: Straight, folder: Path, stops: Iterable[int],
            forget: Forget | None = None) -> dict[int, str]:
  """Stops after each of `stops`, resumes, trains to the end: how each differs from never stopping; {} if none does.

  With `forget` something is lost at each resume, and then there must be differences, or the law is not being tested.
  """
  found = {}
  for stop in stops:
    stopped(live, folder / str(stop), stop)
    with nullcontext() if forget is None else forgetting(forget, straight.first):
      told = difference(straight.folder, live(folder / str(stop)))
    if told:
      found[stop] = told
  return found


def straight_run(live: Live, folder: Path) -> Straight:
  """A run that never stops."""
  saved: list[Saved] = []
  real = Checkpoints.save

  def save(self, step, state, host):
    if not saved:
      saved.append((jax.tree.map(jnp.copy, state), host))
    return real(self, step, state, host)

  with mock.patch.object(Checkpoints, 'save', save):
    return Straight(live(folder), saved[0])


def stopped(live: Live, folder: Path, stop: int) -> None:
  """A run that is told to leave after step `stop`, and does."""
  with mock.patch.object(Preemption, 'asked', lambda self, step: step == stop):
    try:
      live(folder)
    except UserError as error:
      if error.exit_code == PREEMPTED:
        return
      raise
  raise AssertionError(f'it was told to leave after step {stop} and did not')


def difference(straight: Path, other: Path) -> str:
  """How another run of the same differs: in the bits of a step, in the number of steps, in the last state; or ''."""
  ledgers = compare(straight / LEDGER, other / LEDGER)
  if not ledgers.equal or ledgers.alone != (0, 0):
    return f'step {ledgers.first}: {ledgers.told}; {ledgers.steps} steps in both, alone {ledgers.alone}'
  seals = [shelf.look(folder / 'checkpoints').seals for folder in (straight, other)]
  last = [max(seals[0]), max(seals[1])]
  same = last[0] == last[1] == ledgers.steps and seals[0][last[0]].digests == seals[1][last[1]].digests
  return '' if same else f'the last saves differ: those of steps {last}, of {ledgers.steps}'


@contextmanager
def forgetting(forget: Forget, first: Saved) -> Iterator[None]:
  """While the block runs, what is restored is not what was saved."""
  real = Checkpoints.restore

  def restore(self, like):
    found = real(self, like)
    return found and forget(found, first)

  with mock.patch.object(Checkpoints, 'restore', restore):
    yield


def _zeros(tree: Any) -> Any:
  return jax.tree.map(jnp.zeros_like, tree)


def _counters(tree: Any) -> Any:
  return jax.tree.map(lambda x: jnp.zeros_like(x) if jnp.issubdtype(x.dtype, jnp.integer) else x, tree)


FORGET: dict[str, Forget] = {
    'iterator': lambda found, first: (found[0], found[1] | {'source': first[1]['source']}),
    'optimizer': lambda found, first: (found[0].replace(opt_state=_zeros(found[0].opt_state)), found[1]),
    'schedule': lambda found, first: (found[0].replace(opt_state=_counters(found[0].opt_state)), found[1]),
    'key': lambda found, first: (found[0].replace(key=jax.random.key(99)), found[1]),
    'parameters': lambda found, first: (found[0].replace(params=jax.tree.map(jnp.copy, first[0].params)), found[1]),
}
