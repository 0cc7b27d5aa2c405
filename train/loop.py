"""One loop for every kind of training."""

from collections.abc import Sequence

from train.types import Frozen, Hook, Source, State, StepFn


def run(state: State, frozen: Frozen, step: StepFn, source: Source, steps: int, hooks: Sequence[Hook]) -> State:
  """The state after step `steps`. Each hook sees the number of steps done, the state, and that step's metrics.

  Steps are dispatched without waiting for their results; a hook that reads a metric at once makes the loop wait, so the
  hooks of this room look at the step before.
  """
  for index in range(int(state.step), steps):
    state, metrics = step(state, frozen, source(state))
    for hook in hooks:
      hook(index + 1, state, metrics)
  return state
