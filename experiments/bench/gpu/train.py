"""The training step in bfloat16 at the matmul, ours beside Hugging Face's and litgpt's, one contestant after another.

Ours comes in the forms that matter: packed rows, as runs train on, and whole ones, whose band cuDNN knows; later, as the part
`peers`, a stream in bfloat16, and packed rows by the kernel that needs no Hopper. The peers keep theirs in float32, as
autocast has it, and see whole rows. Both sizes have a round before either has the next, since time may end.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

from experiments.bench.driver import Contestant, race
from experiments.bench.gpu.bench import Bench, Record, card, started
from experiments.bench.line import apart, figures
from experiments.bench.ours.model import write_batches
from experiments.bench.task import BATCHES, LOSSES, TASKS
from train.eval.ceiling import on_datasheet

SAME = 5                               # so many losses are compared: from then on roundings of bfloat16 drive curves apart
PEAK = 989e12                          # FLOP/s of a card that no datasheet is known of: a Hopper's in dense bfloat16
TURNS = 3, 2                           # of so many samples, each a burst of steps
OURS: dict[str, dict[str, Any]] = {
  'ours packed': {'rows': 'packed'},
  'ours whole': {'rows': 'whole'},
}
PEERS: dict[str, tuple[str, str, Callable[[Bench], str]]] = {      # the module of each, its form, its interpreter
  'HF compiled': ('experiments.bench.peers.hf', 'compiled', attrgetter('peers')),
  'litgpt compiled': ('experiments.bench.peers.lit', 'compiled', attrgetter('litgpt')),
  'HF eager': ('experiments.bench.peers.hf', 'eager', attrgetter('peers')),
}
Round = tuple[dict[str, dict[str, Any]], tuple[str, ...]]          # forms of ours, and peers after them
FIRST: tuple[Round, ...] = ((OURS, ('HF compiled',)),)
REST: tuple[Round, ...] = (
  ({'ours whole, bf16 stream': {'rows': 'whole', 'stream': 'bfloat16'}}, ('litgpt compiled',)),
  ({'ours packed, triton': {'rows': 'packed', 'compute': {'attention': 'triton'}}}, ('HF eager',)))
OTHERS: dict[str, dict[str, Any]] = {
  'ours packed, bf16 stream': {'rows': 'packed', 'stream': 'bfloat16'},
  'ours whole, 2 parts': {'rows': 'whole', 'parts': 2},
  'ours whole, scanned': {'rows': 'whole', 'compute': {'layers': 'scan'}},
  'ours whole, remat dots': {'rows': 'whole', 'compute': {'remat': 'dots'}},
  'ours whole, remat full': {'rows': 'whole', 'compute': {'remat': 'full'}},
}


def names(bench: Bench) -> tuple[str, ...]:
  """The sizes."""
  return ('tiny',) if bench.quick else ('124m', '1b')


def contests(bench: Bench, rounds: Sequence[Round] = FIRST) -> Iterator[Record]:
  """A record for each size and contestant: ours first, for it writes the parameters that all begin with."""
  for each in rounds:
    for name in names(bench):
      room(bench, name)
      yield from contest(bench, name, entrants(bench, name, each))


def entrants(bench: Bench, name: str, each: Round) -> list[Contestant]:
  """Those of a round, at one size."""
  forms, others = each
  return [*(ours(bench, name, label, form) for label, form in forms.items()), *(peer(bench, name, label) for label in others)]


def peers(bench: Bench) -> Iterator[Record]:
  """The training step by the other peers, and by other kernels of ours: more records of the part `train`."""
  for record in contests(bench, REST):
    yield {'part': 'train', **record}


def variants(bench: Bench) -> Iterator[Record]:
  """Other forms of ours."""
  for name in names(bench):
    room(bench, name)
    yield from contest(bench, name, [ours(bench, name, label, form) for label, form in OTHERS.items()])


def contest(bench: Bench, name: str, contestants: list[Contestant]) -> Iterator[Record]:
  """One record each, with how far its first losses are from the size's first; they are compared before any speed is told."""
  for contestant in contestants:
    label = contestant.name.partition(' ')[2]
    try:
      found = race([bench.limited(contestant)], *((2, 1) if bench.quick else TURNS), bench.out)
    except Exception as error:         # one that fails leaves the others to be measured
      yield {'task': name, 'contestant': label, 'failed': str(error)[-1500:]}
      continue
    prepared = found.prepared[contestant.name]
    losses = prepared.pop('losses') + found.series(contestant.name, 'loss')
    distance = apart(bench.first.setdefault(name, losses)[:SAME], losses[:SAME])
    yield {'task': name, 'contestant': label, 'equal': distance <= LOSSES['bfloat16'], 'apart': distance,
           **speed(name, found.turns[contestant.name]), **prepared, 'losses': losses}


def speed(name: str, turns: list[list[dict[str, float]]]) -> Record:
  """What a step's median comes to."""
  task, each = TASKS[name], figures(turns)
  return {'seconds': each.median, 'fastest': each.minimum, 'spread': each.spread, 'cpu': each.cpu,
          'tokens_per_s': task.tokens / each.median, 'tflops': task.flops / each.median / 1e12,
          'mfu': task.flops / each.median / (on_datasheet(card()) or PEAK)}


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


def peer(bench: Bench, name: str, label: str) -> Contestant:
  module, form, python_of = PEERS[label]
  words = (str(bench.folder / f'train-{name}'), name, 'bfloat16', form)
  return Contestant(f'{name} {label}', module, words, python_of(bench), bench.caches_of(f'{name} {label}'), ahead=False)


def compiled(bench: Bench) -> Iterator[Record]:
  """Compiles what the part `train` needs, all of it side by side; what fails here is told of there.

  Peers take steps to do so, which the card may not hold at once: what is compiled by then is kept all the same.
  """
  begin = time.monotonic()
  for name in names(bench):
    room(bench, name)
  lanes = [contestant for name in names(bench) for each in FIRST for contestant in entrants(bench, name, each)]
  with ThreadPoolExecutor(len(lanes)) as threads:
    list(threads.map(partial(compile_alone, bench), lanes))
  yield {'compiled': len(lanes), 'seconds': time.monotonic() - begin}


def compile_alone(bench: Bench, contestant: Contestant) -> None:
  """A process that is told to compile and no more."""
  command = [contestant.python, '-m', contestant.module, *contestant.arguments, 'compile']
  with ((bench.out / f'compile-{contestant.name.replace(" ", "-")}.log').open('w') as log,
        started(command, log, contestant.environment, bench.left) as process):
    process.communicate()
