"""Measures Athanor beside its peers: each benchmark is one JSON line in --out and a table on the screen.

  python -m experiments.bench                       all of them, about twenty minutes on two cores
  python -m experiments.bench train checkpoint      some of: train head data checkpoint start tune rlhf decode
  python -m experiments.bench --quick               a look whether all runs, judged by nobody
  python -m experiments.bench table                 the last line of each benchmark in --out as Markdown

Contestants are warm processes that take turns; losses are compared before speed; during its turn a contestant runs at
real-time priority where that is allowed. A line says "noisy" instead of judging where a contestant's turns differ by
more than 15%. Peers live in environments of their own, which `make bench` makes.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from absl import app, flags

from experiments.bench import checkpoint, data, decode, head, page_lines, rlhf, start, train, tune
from experiments.bench.driver import say
from experiments.bench.line import Line, append
from experiments.bench.setting import Setting
from experiments.bench.show import latest, markdown, show

OUT = flags.DEFINE_string('out', 'bench.jsonl', 'The file that lines are added to.')
QUICK = flags.DEFINE_bool('quick', False, 'Two turns of one step: to see that it runs.')
TURNS = flags.DEFINE_integer('turns', 5, 'How often each contestant has its turn.', lower_bound=3)
HF = flags.DEFINE_string('hf', '.venv-peers-hf/bin/python', 'An interpreter with torch and transformers.')
TRL = flags.DEFINE_string('trl', '.venv-peers-trl/bin/python', 'An interpreter with torch, transformers and trl.')
LITGPT = flags.DEFINE_string('litgpt', '.venv-peers-litgpt/bin/python', 'An interpreter with torch and litgpt.')
LLAMA = flags.DEFINE_string('llama', '.venv-peers-llama/bin/python', 'An interpreter with llama-cpp-python.')

BENCHMARKS: dict[str, Callable[[Setting], Iterator[Line]]] = {
  'train': train.lines, 'head': head.lines, 'data': data.lines, 'checkpoint': checkpoint.lines, 'start': start.lines,
  'tune': tune.lines, 'rlhf': rlhf.lines, 'decode': decode.lines}


def main(argv: Sequence[str]) -> None:
  """Runs what is named, all where nothing is."""
  names = argv[1:] or list(BENCHMARKS)
  if names == ['table']:
    print(markdown(latest(Path(OUT.value))))
    return
  unknown = [name for name in names if name not in BENCHMARKS]
  if unknown:
    raise app.UsageError(f'{unknown[0]}: there are {", ".join(BENCHMARKS)} and table')
  Path('.cache').mkdir(exist_ok=True)
  with tempfile.TemporaryDirectory(prefix='bench-', dir='.cache') as folder:
    setting = Setting(Path(folder).resolve(), peers(), TURNS.value, QUICK.value)
    for name in names:
      say(f'{name}:')
      for line in BENCHMARKS[name](setting):
        show(append(Path(OUT.value), line))
  say(f'the page: {page_lines.write([Path(OUT.value)], Path(OUT.value).with_suffix(".html"))}')


def peers() -> dict[str, str]:
  """The interpreters of the peers' environments that are there."""
  flags_of = {'hf': HF, 'litgpt': LITGPT, 'trl': TRL, 'llama': LLAMA}
  found = {name: flag.value for name, flag in flags_of.items() if Path(flag.value).exists()}
  for name in flags_of.keys() - found.keys():
    say(f'no environment for the peers in {name}: {"make peers-llama builds" if name == "llama" else "make bench makes"} it')
  return {name: str(Path(path).absolute()) for name, path in found.items()}


if __name__ == '__main__':
  app.run(main)
