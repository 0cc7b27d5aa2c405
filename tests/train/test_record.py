"""What is written down of steps: each once and in order, the first at once, and the rest without making the device wait."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from train import record
from train.eval.ceiling import Peak
from train.record import MetricsLog, Pace, Record, Recorder
from train.types import Mean


def metrics(loss: float) -> dict[str, Mean]:
  return {'loss': Mean.of(jnp.float32(loss))}


def test_the_first_step_is_read_at_once_and_others_one_late():
  seen: list[Record] = []
  recorder = Recorder([seen.append])
  counts = []
  for step in (8, 9, 10):
    recorder(step, None, metrics(step / 2))
    counts.append(len(seen))
  recorder.flush()
  assert counts == [1, 1, 2]
  assert [(each.step, float(each.values['loss'])) for each in seen] == [(8, 4.0), (9, 4.5), (10, 5.0)]


class Computed:
  """A number that the device needs two seconds for."""

  def __init__(self, clock: list[float]):
    self.clock = clock

  def __array__(self, *_, **__):
    self.clock[0] += 2
    return np.float32(1)


def test_what_is_done_with_the_first_step_is_not_the_time_of_the_second(monkeypatch):
  clock, seen = [100.0], []
  monkeypatch.setattr(record.time, 'perf_counter', lambda: clock[0])

  def slow(each: Record) -> None:
    seen.append(each)
    clock[0] += 40 if len(seen) == 1 else 0

  recorder = Recorder([slow])
  for step in (1, 2, 3):
    recorder(step, None, {'loss': Mean(Computed(clock), np.float32(1))})
  recorder.flush()
  assert [each.seconds for each in seen] == [2, 2, 2]


def test_the_peak_is_measured_once_and_not_before_the_first_step_is_on_record(tmp_path):
  told: list[str] = []

  def measure() -> Peak:
    told.append('measured')
    return Peak(1e12, 'here')

  log = MetricsLog(tmp_path, every=1, pace=Pace(tokens=1000, flops=6e6, measure=measure), rate=lambda step: 0.5 ** step)
  recorder = Recorder([lambda each: told.append(f'step {each.step}'), log])
  for step in (1, 2):
    recorder(step, None, metrics(1.0))
  recorder.flush()
  log.close()
  assert told == ['step 1', 'measured', 'step 2']
  lines = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
  assert [line['lr'] for line in lines] == [1, 0.5]
  for line in lines:
    assert line['mfu'] == pytest.approx(line['tokens_per_s'] * 6e6 / 1e12)
    assert np.isfinite(line['mfu'])
