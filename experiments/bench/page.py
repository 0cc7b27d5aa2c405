"""Draws what benchmarks wrote down: JSON lines into one page of HTML that needs nothing else.

  python -m experiments.bench.page --out=FOLDER                 of all lines in docs/bench and in FOLDER, into FOLDER/bench.html
  python -m experiments.bench.page --out=FOLDER bench.jsonl     of these files alone

A page of its own lines is also left beside them by `python -m experiments.bench` and `python -m experiments.bench.gpu`.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import app, flags

from experiments.bench.page_lines import PAGE, write

OUT = flags.DEFINE_string('out', 'runs/bench', 'The folder that bench.html is left in; its *.jsonl are read too.')
KEPT = Path('docs/bench')


def main(argv: Sequence[str]) -> None:
  """Writes the page. Raises: UsageError for a file that is not there, or where there is none."""
  folder = Path(OUT.value)
  paths = [Path(name) for name in argv[1:]] or sorted([*KEPT.glob('*.jsonl'), *folder.glob('*.jsonl')])
  missing = [str(path) for path in paths if not path.is_file()]
  if missing or not paths:
    raise app.UsageError(f'{", ".join(missing) or "no lines in " + str(folder)}: give files that a benchmark wrote')
  print(write(paths, folder / PAGE))


if __name__ == '__main__':
  app.run(main)
