"""What is written down of steps: each once and in order, the first at once, and the rest without making the device wait."""

import io
import json
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from train.eval.ceiling import Peak
from train.metrics import MetricsLog, Pace, Record, Recorder
from train.types import Mean

ROOT = Path(__file__).resolve().parents[2]


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
  monkeypatch.setattr(time, 'perf_counter', lambda: clock[0])

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


PACE = Pace(1, 1.0, lambda: Peak(1.0, 'said'))


def test_a_disk_that_takes_no_more_events_is_told_by_the_step_that_could_not_write_them(tmp_path):
  """TensorBoard's own writer has a thread; that ended, and the run waited for it."""
  log = MetricsLog(tmp_path, 1, PACE, lambda step: 0.1)
  log.writer._py_recordio_writer._writer = io.FileIO('/dev/full', 'w')
  with pytest.raises(OSError, match='No space left'):
    log(Record(1, {'loss': np.float32(1)}, 0.1))


def test_events_are_what_tensorboard_reads(tmp_path):
  log = MetricsLog(tmp_path, 1, PACE, lambda step: 0.1)
  log.write(3, {'loss': 0.5})
  log.close()
  data = next((tmp_path / 'tensorboard').glob('events.out.tfevents.*')).read_bytes()
  events, at = [], 0
  while at < len(data):
    size = int.from_bytes(data[at:at + 8], 'little')
    events.append(Event.FromString(data[at + 12:at + 12 + size]))
    at += 16 + size
  assert [(each.step, [(value.tag, value.simple_value) for value in each.summary.value]) for each in events[1:]] == [
      (3, [('loss', 0.5)])]
  assert events[0].file_version == 'brain.Event:2'


def test_a_run_goes_on_and_saves_when_nobody_reads_its_progress_any_more():
  code = """
import os, sys
import numpy as np
from train.metrics import Pace, Progress, Record
from tests.train.test_metrics import PACE
progress = Progress(9, 0, PACE)
progress.bar.mininterval = 0
reader, writer = os.pipe()
os.dup2(writer, 1), os.dup2(writer, 2)
os.close(reader), os.close(writer)
for step in range(1, 9):
  progress(Record(step, {'loss': np.float32(1)}, 0.1))
progress.say('held out')
progress.close()
print('said to nobody', flush=True)
sys.exit(75)
"""
  assert subprocess.run([sys.executable, '-c', code], cwd=ROOT, timeout=60).returncode == 75
