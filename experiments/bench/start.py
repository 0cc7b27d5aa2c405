"""How long one waits: for the imports, for the first step of a new run, and for the first step of one that goes on.

Each is a new process, from its start to the moment that counts. The steps are those of a small recipe, launched as
anybody launches it, whose corpus and tokens are there; compiling is part of what is measured, so it has the priority too.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from experiments.bench.driver import ROOT, say
from experiments.bench.line import Line, Target, figures
from experiments.bench.priority import ahead
from experiments.bench.setting import Setting
from experiments.bench.worker import Sample

RECIPE = 'experiments/pretrain/llama_1b_tiny.py'
STEPS = 1_000_000                      # never reached: the run is told to leave
PATIENCE = 120                         # seconds


def lines(setting: Setting) -> Iterator[Line]:
  """Three lines."""
  turns = 2 if setting.quick else setting.turns
  yield imports(setting, turns)
  yield from steps(setting, turns)


def imports(setting: Setting, turns: int) -> Line:
  """What a run's value imports and what its training does, beside jax, which is most of it, and what a peer's does."""
  words = {'ours': (sys.executable, 'import train.run'), 'ours, to train': (sys.executable, 'import train.training'),
           'jax alone': (sys.executable, 'import jax')}
  if 'hf' in setting.peers:
    words['torch and transformers'] = (setting.peers['hf'], 'import torch; from transformers import LlamaForCausalLM')
  found: dict[str, list[list[Sample]]] = {name: [] for name in words}
  load = []
  for turn in range(turns + 1):        # the first reads files that are not in memory
    load.append(os.getloadavg()[0])
    for name, (python, text) in words.items():
      sample = finished([python, '-c', text])
      if turn:
        found[name].append([sample])
  line = Line('import', 's', {name: figures(each) for name, each in found.items()}, 'ours', load=load,
              quick=setting.quick)
  line.targets = [Target('seconds', line.figures['ours'].median, most=1.2)]
  return line


def steps(setting: Setting, turns: int) -> Iterator[Line]:
  """The first step of a new run that finds nothing compiled, and of the same run launched again."""
  folder = setting.room('start')
  say('  making the corpus and the tokens')
  launched(folder, folder / 'unused')
  cold, warm, load = [], [], []
  for turn in range(turns):
    for run in folder.glob('runs/llama-1b-tiny-*'):
      shutil.rmtree(run)
    load.append(os.getloadavg()[0])
    cache = folder / f'cache-{turn}'
    cold.append([launched(folder, cache)])
    launched(folder, cache)            # compiles what only a restore needs
    warm.append([launched(folder, cache)])
  for name, samples, most in (('first-step', cold, 6.0), ('relaunch', warm, 3.0)):
    line = Line(name, 's', {'ours': figures(samples)}, 'ours', load=load, quick=setting.quick)
    line.targets = [Target('seconds', line.figures['ours'].median, most=most)]
    yield line


def launched(folder: Path, cache: Path) -> Sample:
  """Seconds of a launch to its first new step."""
  with ahead(os.getpid()):             # the one who looks at the clock must not wait; what it starts inherits this
    return Launch(folder, cache).leave()


class Launch:
  """One launch of the recipe: it starts at once, and `leave` lets it go when its first step is on record."""

  def __init__(self, folder: Path, cache: Path):
    self.folder = folder
    self.before = self._recorded()
    command = [sys.executable, '-m', 'experiments.launch', f'--config={RECIPE}', f'--runs={folder / "runs"}',
               f'--config.steps={STEPS}', '--config.watch.heldout=0', '--config.saving.every=0']
    self.log = folder / 'launch.log'
    self.begin = time.perf_counter()
    environment = os.environ | {'JAX_COMPILATION_CACHE_DIR': str(cache)}
    with self.log.open('w') as out:
      self.process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out, env=environment)

  def leave(self) -> Sample:
    """Seconds from its start to its first new step, and of all cores by then; it then saves and leaves."""
    try:
      waited(lambda: self._recorded() > self.before or self.process.poll() is not None)
      wall = time.perf_counter() - self.begin
      if self.process.poll() is not None:
        raise RuntimeError(f'the launch ended with {self.process.returncode}:\n{self.log.read_text()[-2000:]}')
      sample = {'wall': wall, 'cpu': used(self.process.pid)}
      self.process.send_signal(signal.SIGTERM)
      self.process.wait(PATIENCE)
    finally:
      self.process.kill()
      self.process.wait()
    return sample

  def _recorded(self) -> int:
    """How many steps the ledger of the run has."""
    ledgers = list(self.folder.glob('runs/llama-1b-tiny-*/ledger.jsonl'))
    return ledgers[0].read_text().count('"step"') if ledgers else 0


def finished(command: list[str]) -> Sample:
  """Seconds of a process from its start to its end."""
  with ahead(os.getpid()):
    begin, before = time.perf_counter(), os.times()
    code = subprocess.run(command, cwd=ROOT, env=os.environ | {'PYTHONPATH': '.'}, check=False).returncode
    wall, after = time.perf_counter() - begin, os.times()
  if code:
    raise RuntimeError(f'{" ".join(command)} ended with {code}')
  cpu = after.children_user + after.children_system - before.children_user - before.children_system
  return {'wall': wall, 'cpu': cpu}


def waited(holds: Callable[[], bool]) -> None:
  """Returns once it holds. Raises: TimeoutError."""
  end = time.perf_counter() + PATIENCE
  while not holds():
    if time.perf_counter() > end:
      raise TimeoutError(f'nothing happened for {PATIENCE} s')
    time.sleep(0.005)


def used(pid: int) -> float:
  """Seconds of all cores that a process took so far."""
  words = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
  return (int(words[11]) + int(words[12])) / os.sysconf('SC_CLK_TCK')
