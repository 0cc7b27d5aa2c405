"""Records of the GPU benchmark for the page: bars of tokens/s and TFLOP/s, ratios to peers, and the roofline."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from experiments.bench.page_gpu_peers import ROWS, races
from experiments.bench.page_peers import Benchmark
from experiments.bench.page_roofline import Point, roofline
from experiments.bench.sights import WIDTH, Sight, sights
from experiments.bench.task import TASKS
from train.eval.show import NONE, Figure, Grid, words

Record = Mapping[str, Any]
SIGHTS = {sight.name: sight for quick in (True, False) for sight in sights(quick)}
PARTS = {'tests': 'the tests that need a GPU', 'ceilings': 'what the card can do', 'train': 'the training step',
         'attention': 'attention', 'head': 'the loss head', 'decode': 'decoding', 'lowbit': 'products in few bits',
         'quickstart': 'the quick start', 'checkpoint': 'checkpoints', 'variants': 'other forms of the training step'}
LONG = {'part', 'losses', 'form', 'load', 'code', 'versions', 'wrong', 'failed', 'attention'}


class Bar(NamedTuple):
  """A contestant: `width` in percent of the longest of its group, `second` that of another figure below."""

  name: str
  value: str
  width: str
  ours: bool
  second: str = ''


class Group(NamedTuple):
  """Bars on one scale."""

  title: str
  bars: list[Bar]
  failed: list[str]


class Section(NamedTuple):
  """A heading and what stands below."""

  title: str
  groups: list[Group]


class Gpu(NamedTuple):
  """A card's benchmark."""

  ceilings: str
  races: list[Benchmark]
  training: list[Group]
  attention: list[Section]
  head: Group | None
  roofline: Markup
  others: list[Grid]
  missing: list[str]


def gpu(records: Sequence[Record]) -> Gpu:
  """All that is shown of a file."""
  product, copy = (ceiling(records, what, key) for what, key in (('bfloat16 product', 'tflops'), ('copy', 'gb_per_s')))
  said = f'A product of bfloat16 matrices {product:,.0f} TFLOP/s, a copy {copy:,.0f} GB/s.' if product and copy else ''
  points = [*attention_points(records), *head_points(records)]
  drawn = roofline(points, product, copy) if points and product and copy else Markup('')
  return Gpu(said, races(records, attended(records)), training(records), attention(records), head(records), drawn,
             others(records), missing(records))


def card_of(records: Sequence[Record]) -> str:
  """The name of the card that told last, '' if none did."""
  return next((each['card'].split(',')[0] for each in reversed(records) if each.get('card')), '')


def ceiling(records: Sequence[Record], what: str, key: str) -> float | None:
  """The last measured of a kind."""
  return next((each[key] for each in reversed(records) if each.get('part') == 'ceilings' and each.get('what') == what
               and key in each), None)


def training(records: Sequence[Record]) -> list[Group]:
  """Tokens a second of each size, the last record of each contestant."""
  found = {(each['task'], each['contestant']): each for each in records
           if each.get('part') in ('train', 'variants') and 'contestant' in each and 'task' in each}
  groups = []
  for task in dict.fromkeys(task for task, _ in found):
    each = {contestant: record for (of, contestant), record in found.items() if of == task}
    done = {name: record for name, record in each.items() if 'tokens_per_s' in record}
    most = max((record['tokens_per_s'] for record in done.values()), default=1.0)
    bars = [Bar(name, f'{record["tokens_per_s"]:,.0f} tokens/s, MFU {record["mfu"]:.1%}' + said_apart(record),
                f'{100 * record["tokens_per_s"] / most:.1f}', name.startswith('ours'))
            for name, record in sorted(done.items(), key=lambda item: -item[1]['tokens_per_s'])]
    groups.append(Group(f'{task}: {TASKS[task].tokens:,} tokens a step' if task in TASKS else task, bars, failed(each)))
  return groups


def said_apart(record: Record) -> str:
  return '' if record.get('equal', True) else ', losses NOT equal'


def failed(each: Mapping[str, Record]) -> list[str]:
  """What did not run, with the last line that it wrote."""
  return [f'{name}: {(record["failed"].strip().splitlines() or ["no word"])[-1][:160]}' for name, record in each.items()
          if 'failed' in record]


def attended(records: Sequence[Record]) -> dict[str, dict[str, dict[bool, Record]]]:
  """The last record of each shape, form and direction."""
  found: dict[str, dict[str, dict[bool, Record]]] = {}
  for each in records:
    if each.get('part') == 'attention' and 'sight' in each:
      found.setdefault(each['sight'], {}).setdefault(each['form'], {})[bool(each.get('backward'))] = each
  return found


def attention(records: Sequence[Record]) -> list[Section]:
  """TFLOP/s of live scores: a group for each shape, under the kind of its rows."""
  found, top = attended(records), ceiling(records, 'bfloat16 product', 'tflops')
  sections = []
  for kind in dict.fromkeys(sight.split()[0] for sight in found):
    groups = [_shape(sight, forms, top) for sight, forms in found.items() if sight.split()[0] == kind]
    sections.append(Section(ROWS.get(kind, kind).capitalize(), groups))
  return sections


def _shape(sight: str, forms: Mapping[str, Mapping[bool, Record]], top: float | None) -> Group:
  _, length, _, size = sight.split()
  rates = {form: [each.get(backward, {}).get('tflops', 0.0) for backward in (False, True)] for form, each in forms.items()}
  most = max([top or 0.0, *(rate for both in rates.values() for rate in both)]) or 1.0
  bars = [Bar(form + (' *' if any(each.get('chosen') for each in forms[form].values()) else ''),
              ' / '.join(f'{rate:.0f}' if rate else NONE for rate in both), f'{100 * both[0] / most:.1f}',
              form.startswith('ours'), f'{100 * both[1] / most:.1f}')
          for form, both in sorted(rates.items(), key=lambda item: -item[1][1])]
  wrong = {f'{form}, {"with backward" if backward else "forward"}': each for form, both in forms.items()
           for backward, each in both.items()}
  return Group(f'{int(length):,} tokens, head size {size}', bars, failed(wrong))


def head(records: Sequence[Record]) -> Group | None:
  """TFLOP/s of the loss head."""
  found = {each['contestant']: each for each in records if each.get('part') == 'head' and 'contestant' in each}
  done = {name: each for name, each in found.items() if 'tflops' in each}
  most = max([ceiling(records, 'bfloat16 product', 'tflops') or 0.0, *(each['tflops'] for each in done.values())]) or 1.0
  bars = [Bar(name, f'{each["tflops"]:.0f} TFLOP/s', f'{100 * each["tflops"] / most:.1f}', name.startswith('ours'))
          for name, each in sorted(done.items(), key=lambda item: -item[1]['tflops'])]
  return Group('Loss head, forward with backward', bars, failed(found)) if found else None


def attention_points(records: Sequence[Record]) -> list[Point]:
  """FLOPs a byte if every operand moved once in bfloat16: q, k, v and the result, and as many again and the gradients back."""
  points = []
  for name, forms in attended(records).items():
    for form, both in forms.items():
      for backward, each in both.items():
        sight: Sight | None = SIGHTS.get(name)
        if sight and 'tflops' in each:
          moved = (12 if backward else 4) * sight.tokens * WIDTH * 2
          intensity = 1e12 * each['tflops'] * each['seconds'] / moved
          points.append(Point(f'{form}, {name}{", with backward" if backward else ""}', intensity, each['tflops'],
                              form.startswith('ours'), backward))
  return points


def head_points(records: Sequence[Record]) -> list[Point]:
  """Hidden states in bfloat16 and the head in float32, each read once and its gradient written once."""
  task = TASKS['head']
  moved = 2 * (task.tokens * task.width * 2 + task.width * task.vocab * 4)
  return [Point(f'loss head, {each["contestant"]}', 1e12 * each['tflops'] * each['seconds'] / moved, each['tflops'],
                each['contestant'].startswith('ours'), True)
          for each in records if each.get('part') == 'head' and 'tflops' in each]


def others(records: Sequence[Record]) -> list[Grid]:
  """The parts that have no drawing, as tables of their plain figures."""
  grids = []
  for part in dict.fromkeys(each['part'] for each in records):
    rows = [dict(_flat(each)) for each in records if each['part'] == part and 'took_s' not in each]
    rows = [row for row in rows if row]
    if part not in ('machine', 'ceilings', 'train', 'variants', 'attention', 'head', 'compile') and rows:
      head = list(dict.fromkeys(key for row in rows for key in row))
      cells = [[_figure(row.get(key)) for key in head] for row in rows]
      grids.append(Grid.of([words(key) for key in head], cells, PARTS.get(part, part)))
  return grids


def _flat(record: Record) -> Iterator[tuple[str, Any]]:
  """Its plain figures, those of a record in it by both their names."""
  for key, value in record.items():
    if isinstance(value, dict) and key not in LONG:
      yield from ((f'{key} {name}', each) for name, each in _flat(value))
    elif key not in LONG and isinstance(value, str | int | float):
      yield key, value


def _figure(value: Any) -> Any:
  return Figure(f'{value:,.4g}' if abs(value) < 1000 else f'{value:,.0f}') if isinstance(value, float) else value


def missing(records: Sequence[Record]) -> list[str]:
  """The parts of which there is no figure, with the reason where one is told."""
  told = []
  for part, name in PARTS.items():
    mine = [each for each in records if each.get('part') == part and 'took_s' not in each]
    if not [each for each in mine if 'failed' not in each]:
      why = next((each['failed'].strip().splitlines()[-1][:160] for each in mine if each.get('failed')), 'it was not run')
      told.append(f'{name} ({why})')
  return told
