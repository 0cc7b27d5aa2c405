"""Two processes save one state together, and leave, die and come back together."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest

from model.errors import PREEMPTED
from tests.campaign import real
from tests.campaign.pair import like
from tests.campaign.resume import difference
from train.checkpoint import Checkpoints
from train.saving import shelf
from train.saving.digest import digests
from train.saving.leaves import bits, named

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120.0


def environment(devices: int = 1) -> dict[str, str]:
  """That of a process with so many devices."""
  return os.environ | {'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}', 'JAX_PLATFORMS': 'cpu',
                       'JAX_COMPILATION_CACHE_DIR': str(ROOT / '.cache' / 'jax')}


def free_port() -> int:
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    return free.getsockname()[1]


class Pair:
  """Two processes at work in a folder; `said` has what the first of them prints."""

  def __init__(self, folder: Path, steps: int):
    command = [sys.executable, '-m', 'tests.campaign.pair', str(free_port())]
    self.processes = [
        subprocess.Popen([*command, str(process), str(folder), str(steps)], cwd=ROOT, env=environment(), stdout=out, text=True)
        for process, out in enumerate((subprocess.PIPE, subprocess.DEVNULL))]

  def __enter__(self) -> 'Pair':
    return self

  def __exit__(self, *_) -> None:
    for process in self.processes:
      process.kill()
      process.wait()

  def until(self, line: str) -> None:
    """Returns when the first process has printed the line."""
    for said in self.processes[0].stdout:
      if said.strip() == line:
        return

  def codes(self) -> list[int]:
    """The exit codes, when both are gone."""
    self.processes[0].stdout.read()
    return [process.wait(PATIENCE) for process in self.processes]


def test_a_wish_to_one_is_followed_by_both_and_one_process_restores_what_they_saved(tmp_path):
  with Pair(tmp_path, steps=60) as pair:
    pair.until('step 4')
    pair.processes[1].send_signal(signal.SIGTERM)
    assert pair.codes() == [PREEMPTED, PREEMPTED]
  look = shelf.look(tmp_path / 'checkpoints')
  step = max(look.seals)
  assert 4 <= step < 60 and len(look.seals) == 2 and not look.leftovers
  with Checkpoints(tmp_path / 'checkpoints') as saves:
    for count in (1, 2, 8):
      state, host = saves.restore(like(jax.devices()[:count]))
      assert (int(state.step), host) == (step, {'step': step})
      assert digests(bits(named(state))) == look.seals[step].digests


@pytest.mark.campaign
def test_two_processes_go_on_from_what_they_saved(tmp_path):
  for steps, begin in ((6, 0), (9, 6)):
    with Pair(tmp_path, steps) as pair:
      pair.until(f'begins at {begin}')
      assert pair.codes() == [0, 0]
  assert list(shelf.look(tmp_path / 'checkpoints').seals) == [6, 9]


@pytest.mark.campaign
def test_either_is_killed_and_the_curve_is_the_same_to_the_bit(tmp_path):
  kills = int(os.environ.get('ATHANOR_PAIR_KILLS', 6))
  rng = random.Random(seed := int(os.environ.get('ATHANOR_SEED', random.SystemRandom().randrange(10**6))))
  steps, waited = 3 * kills + 6, []
  with Pair(tmp_path / 'straight', steps) as pair:
    assert pair.codes() == [0, 0]
  for kill in range(kills):
    with Pair(tmp_path / 'killed', steps) as pair:
      pair.until(f'step {3 * kill + 3}')
      time.sleep(rng.uniform(0, 0.2))
      pair.processes[kill % 2].kill()
      begin = time.monotonic()
      assert pair.codes()[1 - kill % 2] != 0
      waited.append(time.monotonic() - begin)
  with Pair(tmp_path / 'killed', steps) as pair:
    assert pair.codes() == [0, 0]
  assert difference(tmp_path / 'straight', tmp_path / 'killed') == ''
  print(f'\nseed {seed}: {kills} kills of one of two, 0 differences; the other was gone after {max(waited):.1f} s')


def launched(arguments: list[str], *join: str, devices: int = 1) -> subprocess.Popen:
  return subprocess.Popen([sys.executable, '-m', 'experiments.launch', *arguments, *join], cwd=ROOT, env=environment(devices),
                          stderr=subprocess.PIPE, text=True)


def both(arguments: list[str]) -> list[subprocess.Popen]:
  """Two processes of one job."""
  join = (f'--coordinator=127.0.0.1:{free_port()}', '--processes=2')
  return [launched(arguments, *join, f'--process={process}') for process in (0, 1)]


def test_a_process_whose_peer_was_killed_says_so_and_reports_no_bug(tmp_path):
  """Not the one that they meet at: without that, JAX may end the other before anything can be said."""
  stays, killed = both(real.arguments(tmp_path, 100_000, 0, real.TINY))
  try:
    until = time.monotonic() + PATIENCE
    while not list(tmp_path.glob('**/metrics.jsonl')) and time.monotonic() < until:
      time.sleep(0.1)
    killed.kill()
    _, said = stays.communicate(timeout=PATIENCE)
  finally:
    for process in (stays, killed):
      process.kill()
  assert stays.returncode == 69 and 'error[peer.gone]' in said and 'this is a bug' not in said, said
  assert not list(tmp_path.glob('**/crash.json'))


@pytest.mark.campaign
def test_two_processes_learn_from_rewards_as_one_with_two_devices_does(tmp_path):
  """Each samples, judges and reads the same answers, and learns from its own half of a batch."""
  pair = both(real.arguments(tmp_path / 'two', 12, 3, real.POLICY))
  assert [process.wait(PATIENCE) for process in pair] == [0, 0]
  assert launched(real.arguments(tmp_path / 'one', 12, 3, real.POLICY), devices=2).wait(PATIENCE) == 0
  assert difference(real.made(tmp_path / 'one'), real.made(tmp_path / 'two')) == ''
