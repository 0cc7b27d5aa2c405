"""SmolLM2-135M, real weights: loading them, and greedy decoding beside transformers at 1 and at 16 rows.

Both decode the same prompts of one length in float32, and have written the same ids before they are timed. The weights are
fetched from the package index, and exported for the peer.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import jax

from experiments.bench.driver import Contestant, Race, race
from experiments.bench.line import Line, Target, raced
from experiments.bench.setting import Setting
from experiments.bench.task import DECODED, PROMPTED, PROMPTS, THEIRS
from experiments.smollm2.chat import get_config
from model.weights.exporting import export
from train.artifact import Store
from train.trained import load

OURS, PEER = 'ours', 'HF eager'
ROWS = (1, 16)
TEXTS = ('The history of the city begins with a small village near the river, where people', 'In the morning the ships left',
         'Every student should know that the sum of two numbers is', 'def add(a, b):\n  return a + b\n\nprint(add(1, 2))\n\n')


def lines(setting: Setting) -> Iterator[Line]:
  """One line for each number of rows, and one for loading."""
  folder = setting.room('published')
  lay(folder)
  for rows in ROWS:
    racers = [Contestant(OURS, 'experiments.bench.ours.decode', (str(folder), str(rows))),
              *setting.peer(PEER, 'trl', 'hf_decode', str(folder), str(rows))]
    found = race(racers, 2 if setting.quick else setting.turns, 1 if setting.quick else 3, folder)
    yield judged(found, rows, setting.quick)


def lay(folder: Path) -> None:
  """Makes the model, exports it, and writes the prompts."""
  published, store = get_config(), Store(folder / 'runs')
  store.make(published)
  found = load(published, store)
  export(folder / THEIRS, published.model, found.params, found.tokenizer)
  ids = found.tokenizer.encode(' '.join(TEXTS) * 8)
  prompts = [ids[7 * row:7 * row + PROMPTED] for row in range(max(ROWS))]
  (folder / PROMPTS).write_text(json.dumps(prompts))
  jax.clear_caches()


def judged(found: Race, rows: int, quick: bool) -> Line:
  """The line of a race: ids first."""
  line = Line(f'decode-{rows}', 's/step', raced(found, found.turns), OURS, load=found.load, quick=quick)
  line.targets = [Target(f'speed of {who}', ratio, least=1.0) for who, ratio in line.ratios.items()]
  written = {who: found.prepared[who]['ids'] for who in found.turns}
  line.checks = {'equal': all(ids == written[OURS] for ids in written.values()), 'died': list(found.died),
                 'missing': [] if PEER in line.figures else [PEER]}
  line.more = {'tokens_per_s': {who: rows * DECODED / each.median for who, each in line.figures.items()},
               'load_s': {who: found.prepared[who]['load_s'] for who in found.turns},
               'peak_mb': {who: found.prepared[who]['peak_mb'] for who in found.turns}}
  return line
