"""Benchmarks as one page of HTML: how many times as fast as each peer, what was wanted, how near to what the machine can do.

A pure function of the lines, also of those of earlier versions; what they lack is said to be missing.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.bench.page_gpu import Gpu, card_of, gpu
from experiments.bench.page_peers import Benchmark, benchmarks
from train.eval.pages import template

SHOWN = ('python', 'jax', 'flax', 'torch', 'cuda', 'cudnn', 'transformers')
PAGE = 'bench.html'

Record = Mapping[str, Any]


class Source(NamedTuple):
  """What a file of lines comes to: benchmarks beside peers, or the records of a GPU, and what was not measured there."""

  name: str
  machine: str
  versions: str
  benchmarks: list[Benchmark]
  gpu: Gpu | None


def write(paths: Sequence[Path], page: Path) -> Path:
  """Draws the lines of some files, and gives the path of the page."""
  page.parent.mkdir(parents=True, exist_ok=True)
  temporary = page.with_suffix('.tmp')
  temporary.write_text(render([source(path.name, lines(path)) for path in paths]), encoding='utf-8')
  return temporary.replace(page)


def lines(path: Path) -> list[Record]:
  """The records of a file; a line that was cut off is left out."""
  found = []
  for text in path.read_text(encoding='utf-8').splitlines():
    try:
      found.append(json.loads(text))
    except ValueError:
      continue
  return [line for line in found if isinstance(line, dict)]


def source(name: str, records: Sequence[Record]) -> Source:
  """The records of one file, of whichever kind."""
  raced, parts = ([each for each in records if key in each] for key in ('benchmark', 'part'))
  told = [each for each in records if 'processor' in each]
  return Source(name, card_of(parts) or machine(told), versions(records), benchmarks(raced), gpu(parts) if parts else None)


def machine(told: Sequence[Record]) -> str:
  """Where the lines were made."""
  names = dict.fromkeys(f'{each["cores"]} cores of {each["processor"]}' for each in told)
  return '; '.join(names) or 'a machine that is not told'


def versions(records: Sequence[Record]) -> str:
  """When, by which code, with what."""
  dates = [each['when'][:10] for each in records if 'when' in each]
  codes = dict.fromkeys((each['code'].get('commit') or 'no commit')[:8] for each in records if each.get('code'))
  used = {name: version for each in records for name, version in (each.get('versions') or {}).items()}
  used |= {name: each[name] for each in records if each.get('part') == 'machine' for name in SHOWN if name in each}
  named = [f'{name} {used[name]}' for name in SHOWN if name in used]
  span = ' to '.join(dict.fromkeys((min(dates), max(dates)))) if dates else 'no date'
  return ' · '.join([span, *(['code ' + ', '.join(codes)] if codes else []), *named])


def render(sources: Sequence[Source]) -> str:
  """The page."""
  return template('bench.html.j2', Path(__file__).parent).render(sources=sources, summary=summary(sources))


def summary(sources: Sequence[Source]) -> str:
  """One sentence for those who read no further."""
  all_ = [each for source in sources for each in (*source.benchmarks, *(source.gpu.races if source.gpu else ()))]
  peers = [peer for each in all_ for peer in each.peers if peer.judged]
  targets = [target for each in all_ for target in each.targets if each.judged]
  faster = sum(peer.ratio >= 1 for peer in peers)
  said = [f'Athanor is as fast as its peers or faster in {faster} of {len(peers)} comparisons' if peers else '',
          f'meets {sum(target.met for target in targets)} of {len(targets)} figures that were wanted of it' if targets else '']
  noisy = sum(each.verdict == 'noisy' for each in all_)
  beside = any(each.peers for each in all_)
  sentence = ' and '.join(filter(None, said)) or f'Nothing {"can be said of" if beside else "was measured beside"} peers'
  return sentence + (f'; {noisy} of {len(all_)} benchmarks were too rough to judge.' if noisy else '.')

