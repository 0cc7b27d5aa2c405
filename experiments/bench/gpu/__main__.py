"""Checks and times everything on one GPU, in under nine minutes: `make bench-gpu`.

  python -m experiments.bench.gpu --out=FOLDER                  all parts, in the order of their importance
  python -m experiments.bench.gpu --only=train,attention        some of: compile train head ceilings decode lowbit machine peers
                                                                attention tests checkpoint quickstart variants tiles
  python -m experiments.bench.gpu --quick                       tiny shapes, to see that it runs, also without a GPU
  python -m experiments.bench.gpu --only=table                  the table of FOLDER/gpu.jsonl again

Each part appends JSON lines to FOLDER/gpu.jsonl as it goes and prints a short one, so that nothing is lost when it is cut
off; a part that fails, or outstays its time, is told of and the next goes on. Contestants run one after another: each has
the card's memory. `compile` compiles what those of `train` need side by side, which is not timed: they begin warm.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from absl import app, flags

from experiments.bench import page_lines
from experiments.bench.driver import say
from experiments.bench.gpu import parts, train
from experiments.bench.gpu.bench import Bench, Record
from experiments.bench.gpu.table import FILE, append, short, show

OUT = flags.DEFINE_string('out', 'runs/bench-gpu', 'The folder that gpu.jsonl and the logs are left in.')
ONLY = flags.DEFINE_list('only', [], 'The parts to run. Default: all.')
LIMIT = flags.DEFINE_float('limit', 530, 'Seconds for all of it: what was not begun by then is left out.')
QUICK = flags.DEFINE_bool('quick', False, 'Tiny shapes: to see that it runs.')
PEERS = flags.DEFINE_string('peers', sys.executable, 'An interpreter with torch, transformers and liger_kernel.')
LITGPT = flags.DEFINE_string('litgpt', None, 'One with torch and litgpt. Default: that of the peers.')

PARTS: dict[str, tuple[Callable[[Bench], Iterator[Record]], float]] = {      # and the seconds that each may take
  'compile': (train.compiled, 120), 'train': (train.contests, 240), 'head': (parts.head, 90),
  'ceilings': (parts.ceilings, 40), 'decode': (parts.decode, 150), 'lowbit': (parts.lowbit, 90),
  'machine': (parts.machine, 30), 'peers': (train.peers, 240), 'attention': (parts.attention, 300),
  'tests': (parts.tests, 120), 'checkpoint': (parts.checkpoint, 60), 'quickstart': (parts.quickstart, 200),
  'variants': (train.variants, 200), 'tiles': (parts.tiles, 240)}
ENVIRONMENT = {'XLA_PYTHON_CLIENT_PREALLOCATE': 'false', 'TF_CPP_MIN_LOG_LEVEL': '3', 'PYTHONUNBUFFERED': '1',
               'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.3', 'TOKENIZERS_PARALLELISM': 'false'}


def main(argv: Sequence[str]) -> None:
  """Runs the named parts, then prints the table."""
  out, names = Path(OUT.value).resolve(), ONLY.value or list(PARTS)
  unknown = [name for name in names if name not in PARTS and name != 'table']
  if unknown or argv[1:]:
    raise app.UsageError(f'{(unknown or argv[1:])[0]}: --only takes {",".join(PARTS)} and table')
  if names == ['table'] and not (out / FILE).exists():
    raise app.UsageError(f'{out / FILE} is not there: --out names the folder of a benchmark that ran')
  out.mkdir(parents=True, exist_ok=True)
  os.environ.update(ENVIRONMENT)
  if names != ['table']:
    append(out, parts.begun())
  end = time.monotonic() + LIMIT.value
  with tempfile.TemporaryDirectory(prefix='bench-gpu-') as folder:
    bench = Bench(out, Path(folder), PEERS.value, LITGPT.value or PEERS.value, QUICK.value, end)
    for name in names:
      if name != 'table':
        go(name, bench, end)
  show(out)
  say(f'the page: {page_lines.write([out / FILE], out / page_lines.PAGE)}')


def go(name: str, bench: Bench, end: float) -> None:
  """One part, record by record. What stops it is a record too."""
  run, most = PARTS[name]
  begin = time.monotonic()
  bench.end = min(end, begin + (most if not bench.quick else 10 * most))
  say(f'{name} (after {begin - end + LIMIT.value:.0f} s)')
  if begin > end - 10:
    append(bench.out, {'part': name, 'failed': 'no time was left for it'})
    return
  try:
    for record in run(bench):
      say(f'  {short(append(bench.out, {"part": name, **record}))}')
  except Exception as error:           # the next part may well work
    said = f'{type(error).__name__}: {error}'
    say(f'  {short(append(bench.out, {"part": name, "failed": said[-3000:]}))}')
  append(bench.out, {'part': name, 'took_s': time.monotonic() - begin})


if __name__ == '__main__':
  app.run(main)
