"""The training step in bfloat16 at the matmul, ours beside Hugging Face's, one contestant after another.

Ours comes in the forms that matter: whole rows, whose band cuDNN knows; packed rows, as runs train on, by the form that the
door picks and by our own kernel; and a stream in bfloat16. The peers keep theirs in float32, as autocast has it, and see
whole rows.
"""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from experiments.bench.driver import Contestant, race
from experiments.bench.gpu.bench import Bench, Record, started
from experiments.bench.line import apart, figures
from experiments.bench.ours.model import write_batches
from experiments.bench.task import BATCHES, LOSSES, TASKS

MOST = 120                             # seconds of a contestant, its compiling included
SAME = 5                               # so many losses are compared: from then on roundings of bfloat16 drive curves apart
PEAK = 989e12                          # FLOP/s: an H100's or H200's dense bfloat16, by the datasheet
OURS: dict[str, dict[str, Any]] = {
  'ours whole': {'rows': 'whole'},
  'ours packed': {'rows': 'packed'},
  'ours packed, triton': {'rows': 'packed', 'compute': {'attention': 'triton'}},
  'ours whole, bf16 stream': {'rows': 'whole', 'stream': 'bfloat16'},
}
OTHERS: dict[str, dict[str, Any]] = {
  'ours packed, bf16 stream': {'rows': 'packed', 'stream': 'bfloat16'},
  'ours whole, 2 parts': {'rows': 'whole', 'parts': 2},
  'ours whole, scanned': {'rows': 'whole', 'compute': {'layers': 'scan'}},
  'ours whole, unrolled': {'rows': 'whole', 'compute': {'layers': 'unroll'}},
  'ours whole, remat dots': {'rows': 'whole', 'compute': {'remat': 'dots'}},
  'ours whole, remat full': {'rows': 'whole', 'compute': {'remat': 'full'}},
}
TWINS = {('124m', 'ours whole, unrolled'), ('1b', 'ours whole, scanned')}      # as 'ours whole' is there


def names(bench: Bench) -> tuple[str, ...]:
  """The sizes."""
  return ('tiny',) if bench.quick else ('124m', '1b')


def contests(bench: Bench) -> Iterator[Record]:
  """A record for each size and contestant: ours first, for it writes the parameters that all begin with."""
  for name in names(bench):
    folder = room(bench, name)
    peers = [peer(bench, name, form) for form in ('eager', 'compiled')]
    first = [ours(bench, name, label, form) for label, form in OURS.items()]
    yield from contest(bench, name, [first[0], *peers, *first[1:]])
    (folder / 'initial.safetensors').unlink(missing_ok=True)


def variants(bench: Bench) -> Iterator[Record]:
  """Other forms of ours."""
  for name in names(bench):
    room(bench, name)
    yield from contest(bench, name, [ours(bench, name, label, form) for label, form in OTHERS.items()
                                     if (name, label) not in TWINS])


def contest(bench: Bench, name: str, contestants: list[Contestant]) -> Iterator[Record]:
  """One record each, with how far its first losses are from the first's; they are compared before any speed is told."""
  first: list[float] | None = None
  for contestant in contestants:
    label, turns = contestant.name.partition(' ')[2], (2, 1) if bench.quick else (3, 4)
    try:
      found = race([limited(bench, contestant)], *turns, bench.out)
    except Exception as error:         # one that fails leaves the others to be measured
      yield {'task': name, 'contestant': label, 'failed': str(error)[-1500:]}
      continue
    prepared = found.prepared[contestant.name]
    losses = prepared.pop('losses') + found.series(contestant.name, 'loss')
    first = first or losses
    distance = apart(first[:SAME], losses[:SAME])
    yield {'task': name, 'contestant': label, 'equal': distance <= LOSSES['bfloat16'], 'apart': distance,
           **speed(name, found.turns[contestant.name]), **prepared, 'losses': losses}


def speed(name: str, turns: list[list[dict[str, float]]]) -> Record:
  """What a step's median comes to."""
  task, each = TASKS[name], figures(turns)
  return {'seconds': each.median, 'fastest': each.minimum, 'spread': each.spread, 'cpu': each.cpu,
          'tokens_per_s': task.tokens / each.median, 'tflops': task.flops / each.median / 1e12,
          'mfu': task.flops / each.median / PEAK}


def room(bench: Bench, name: str) -> Path:
  """The folder of a size, with its batches."""
  folder = bench.room(f'train-{name}')
  if not (folder / BATCHES).exists():
    write_batches(folder, TASKS[name])
  return folder


def ours(bench: Bench, name: str, label: str, form: dict[str, Any]) -> Contestant:
  """A form of ours. All of the batch at once, unless it says otherwise: parts pay where memory is near the cores."""
  words = (str(bench.folder / f'train-{name}'), name, 'bfloat16', json.dumps({'parts': 1} | form))
  return Contestant(f'{name} {label}', 'experiments.bench.ours.train', words, environment=bench.caches, ahead=False)


def peer(bench: Bench, name: str, form: str) -> Contestant:
  words = (str(bench.folder / f'train-{name}'), name, 'bfloat16', form)
  return Contestant(f'{name} HF {form}', 'experiments.bench.peers.hf', words, bench.peers, bench.caches, ahead=False)


def limited(bench: Bench, contestant: Contestant) -> Contestant:
  """It may take what is left to the part, but not so much that one that hangs costs all others their turn."""
  return replace(contestant, patience=bench.left if bench.quick else min(bench.left, MOST))


def compiled(bench: Bench) -> Iterator[Record]:
  """Compiles what the contest needs, ours and the peer's side by side; what fails here is told of there."""
  begin = time.monotonic()
  for name in names(bench):
    room(bench, name)
  lanes = [*([ours(bench, name, label, form)] for name in names(bench) for label, form in OURS.items()),
           [peer(bench, name, 'compiled') for name in names(bench)]]
  with ThreadPoolExecutor(len(lanes)) as threads:
    list(threads.map(partial(compile_all, bench), lanes))
  yield {'compiled': len(lanes), 'seconds': time.monotonic() - begin}


def compile_all(bench: Bench, contestants: list[Contestant]) -> None:
  """One after another, each told to compile and no more."""
  for contestant in contestants:
    command = [contestant.python, '-m', contestant.module, *contestant.arguments, 'compile']
    with ((bench.out / f'compile-{contestant.name.replace(" ", "-")}.log').open('w') as log,
          started(command, log, contestant.environment, bench.left) as process):
      process.communicate()
