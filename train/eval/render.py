"""A report's numbers as one page of HTML: a pure function of `report.json`, so any report can be drawn again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from train.eval import show
from train.eval.evaluation_page import View, views
from train.eval.pages import template
from train.eval.plots import EMBER, SEA, Curve, Level, plot
from train.eval.show import NONE, Figure, Grid, duration, fixed, milliseconds, number, percent, scaled
from train.files import write_json

SECTIONS = {'training': 'Training', 'samples': 'Samples', 'latency': 'Response time', 'failures': 'Errors',
            'heldout': 'Unseen text', 'vocabulary': 'Tokenizer', 'corpus': 'Corpus', 'lineage': 'Lineage',
            'environment': 'Environment'}
TASKS = {'tasks': 'Tasks'}      # of a report with an evaluation, before the tokenizer


def render(report: dict[str, Any]) -> str:
  """The page. What the report lacks is said to be missing, with the reason that stands in `report['missing']`."""
  tasks = evaluated(report)
  return template('report.html.j2').render(
      r=report, sections=sections(bool(tasks)), tasks=tasks, summary=summary(report['headline']), bars=bars(report),
      tiles=tiles(report), figures=figures(report), latency=latency(report), failures=failures(report), heldout=heldout(report),
      documents=documents(report),
      vocabularies=[vocabulary(kept['table'], kept['name']) for kept in report['vocabulary']],
      corpora=[corpus(kept['table'], kept['name']) for kept in report['corpus']])


def sections(tasks: bool) -> dict[str, str]:
  """The page's sections by their ids, in order."""
  place = list(SECTIONS).index('vocabulary')
  return dict([*list(SECTIONS.items())[:place], *(TASKS.items() if tasks else ()), *list(SECTIONS.items())[place:]])


def evaluated(report: dict[str, Any]) -> list[View]:
  """The tasks of a report; none in one that has no evaluation."""
  return views(report.get('evaluation', []))


def summary(head: dict[str, Any]) -> str:
  """One sentence for those who read no further; it says only what was measured."""
  who = f'A model of {_joined(head["parameters"])} parameters' if head.get('parameters') else 'This model'
  if head.get('train_seconds') and head.get('train_tokens'):
    who += f', trained for {duration(head["train_seconds"])} on {_joined(head["train_tokens"])} tokens,'
  if head.get('bits_per_byte') is None:
    return f'{who.rstrip(",")}, not yet measured on unseen text.'
  parts = [_against(name, head['bits_per_byte'] / head[key] - 1)
           for key, name in (('gzip_bits_per_byte', 'gzip'), ('ngram_bits_per_byte', 'the best n-gram model'))
           if head.get(key)]
  sentence = f'{who} needs {head["bits_per_byte"]:.2f} bits for a byte of text that it never saw'
  return sentence + (f': {" and ".join(parts)}.' if parts else '.')


def _joined(value: float) -> str:
  return ' '.join(filter(None, scaled(value)))


def _against(name: str, change: float) -> str:
  return f'{abs(change):.0%} {"fewer" if change < 0 else "more"} than {name}'


class Bar(NamedTuple):
  """One contestant: `width` is its share of the longest bar, in percent."""

  name: str
  bits: float
  width: str
  ours: bool


def bars(report: dict[str, Any]) -> list[Bar]:
  """The model and the compressors, fewest bits first."""
  rows = [(row['bits_per_byte'], row['name'], False) for row in report['baselines']]
  if report['headline'].get('bits_per_byte') is not None:
    rows.append((report['headline']['bits_per_byte'], 'this model', True))
  longest = max((bits for bits, *_ in rows), default=1.0)
  return [Bar(name, bits, f'{100 * bits / longest:.1f}', ours) for bits, name, ours in sorted(rows)]


class Tile(NamedTuple):
  """A headline figure."""

  name: str
  value: str
  unit: str
  note: str


def tiles(report: dict[str, Any]) -> list[Tile]:
  """The headline figures; a dash where one was not measured."""
  get, notes = report['headline'].get, report['notes']
  return [
    _tile('Perplexity', get('perplexity'), lambda x: (fixed(x, 1), ''), f'per token of {show.show(get("vocabulary"))}'),
    _tile('Parameters', get('parameters'), scaled, notes.get('parameters', '')),
    _tile('Training time', get('train_seconds'), lambda x: (duration(x), ''), f'{show.show(get("step"))} steps'),
    _tile('Training speed', get('tokens_per_s'), _rate, 'median over the steps'),
    _share(get('mfu'), f'of {_joined(get("peak_flops"))}FLOP/s{notes.get("peak", "")}'),
    _tile('First token', get('first_token_p50'), lambda x: (milliseconds(x), ''), 'median, one answer at a time'),
    _tile('Each further token', get('next_token_p50'), lambda x: (milliseconds(x), ''), 'median, one answer at a time'),
    _tile('Answering speed', get('decode_tokens_per_s'), _rate, f'{get("decode_concurrency")} answers at a time'),
  ]


def _tile(name: str, value: float | None, write: Callable[[float], tuple[str, str]], note: str) -> Tile:
  return Tile(name, NONE, '', 'not measured') if value is None else Tile(name, *write(value), note)


def _share(mfu: float | None, note: str) -> Tile:
  """The share of the peak, unless it is more than all: then the peak was timed beside other work."""
  name = 'Share of peak (MFU)'
  if mfu is not None and mfu > 1:
    return Tile(name, NONE, '', 'not known: the peak was timed on a busy machine')
  return _tile(name, mfu, lambda x: (percent(x), ''), note)


def _rate(value: float) -> tuple[str, str]:
  text, scale = scaled(value)
  return text, f'{scale} tokens/s'.strip()


class Drawing(NamedTuple):
  """A plot with its caption; `svg` is ours and safe."""

  title: str
  unit: str
  svg: str


def figures(report: dict[str, Any]) -> list[Drawing]:
  """The curves of training that the report has points for."""
  train, held = report['training'], report['heldout_curve']
  loss = [*_curve('training', train, 'loss', kind='smooth'), *_curve('held out', held, 'loss', SEA, 'dots')]
  bits = _curve('held out', held, 'bits_per_byte', SEA, 'dots')
  levels = [Level(row['name'], row['bits_per_byte']) for row in report['baselines']]
  rates = {'zero': True}
  drawn: list[tuple[str, str, list[Curve], dict[str, Any]]] = [
    ('Loss', 'nats per token', loss, {}),
    ('Unseen text', 'bits per byte', bits, {'levels': levels}),
    ('Learning rate', 'of the schedule', _curve('learning rate', train, 'lr'), rates),
    ('Gradient norm', 'before clipping', _curve('gradient norm', train, 'grad_norm', kind='smooth'), {'log': True}),
    ('Throughput', 'tokens per second', _curve('throughput', train, 'tokens_per_s', kind='smooth'), rates),
    ('Share of peak', 'MFU', _curve('MFU', train, 'mfu', kind='smooth'), rates | {'percent': True}),
  ]
  return [Drawing(title, f'{unit}, {_ends(curves, percent if "percent" in extra else number)}',
                  plot(curves, label=f'{title}, {unit}, over steps', **extra))
          for title, unit, curves, extra in drawn if curves]


def _ends(curves: list[Curve], write: Callable[[float], str]) -> str:
  if len(curves) == 1:
    return f'{write(curves[0].y[-1])} at the end'
  return ', '.join(f'{curve.name} {write(curve.y[-1])}' for curve in curves)


def _curve(name: str, columns: dict[str, list[Any]], column: str, colour: str = EMBER, kind: str = 'line') -> list[Curve]:
  points = [(x, y) for x, y in zip(columns.get('step', []), columns.get(column, [])) if y is not None]
  return [Curve(name, [x for x, _ in points], [y for _, y in points], colour, kind)] if points else []


def latency(report: dict[str, Any]) -> Grid | None:
  """A row a setting: percentiles of the time to the first token and of each further one."""
  head = ['at a time', 'prompt', 'new tokens', 'requests', 'first token p50', 'p95', 'p99',
          'next token p50', 'p95', 'p99', 'tokens/s']
  rows = [[row['concurrency'], row['prompt_tokens'], row['new_tokens'], row['requests'],
           *(milliseconds(row[f'{part}_token_{p}']) for part in ('first', 'next') for p in ('p50', 'p95', 'p99')),
           row['tokens_per_s']] for row in report['latency']]
  return Grid.of(head, rows) if rows else None


def failures(report: dict[str, Any]) -> Grid | None:
  """A row a class, with its denominator."""
  rows = [[row['name'], row['count'], row['of'], percent(row['rate']), percent(row['at_most']), row['rule']]
          for row in report['failures']]
  return Grid.of(['class', 'answers', 'of', 'rate', 'at most (95%)', 'rule'], rows) if rows else None


def heldout(report: dict[str, Any]) -> Grid | None:
  """A row a source of documents, and their sum."""
  rows = [[row['source'], row['documents'], row['bytes'], row['tokens'], *_hardness(row)]
          for row in report['heldout']]
  return Grid.of(['source', 'documents', 'bytes', 'tokens', 'perplexity', 'bits per byte'], rows) if rows else None


class Ranking(NamedTuple):
  """Documents from the best to the worst, in two grids where those between are left out; `title` says what is shown."""

  title: str
  grids: list[Grid]


def documents(report: dict[str, Any]) -> Ranking | None:
  """How hard each held-out document is for the model; None in a report that does not tell them apart."""
  rows, total = report.get('documents', []), report['headline'].get('heldout_documents')
  if not rows:
    return None
  gap = next((i for i in range(1, len(rows)) if rows[i]['rank'] != rows[i - 1]['rank'] + 1), len(rows))
  best, worst = rows[:gap], rows[gap:]
  if not worst:
    return Ranking(f'each of the {len(rows):,} documents, best first', [_ranked(best)])
  return Ranking(f'the {len(best)} best and the {len(worst)} worst of {total:,} documents',
                 [_ranked(best, 'best'), _ranked(worst[::-1], 'worst')])


def _ranked(rows: list[dict[str, Any]], name: str = '') -> Grid:
  head = ['rank', 'document', 'perplexity', 'bits per byte', 'bytes', 'tokens', 'source']     # a phone shows the first few
  return Grid.of(head, [[row['rank'], row['id'], *_hardness(row), row['bytes'], row['tokens'], row['source']]
                        for row in rows], name)


def _hardness(row: dict[str, Any]) -> list[Figure]:
  """Perplexity and bits per byte, all with as many decimals, so that a column can be compared at a glance."""
  return [Figure(fixed(row['perplexity'], 2)), Figure(fixed(row['bits_per_byte'], 3))]


def vocabulary(table: dict[str, Any], name: str) -> tuple[Grid, str]:
  """How short the vocabulary makes each source's text, and the rest in a few sentences."""
  head = ['source', 'split', 'documents', 'bytes', 'tokens', 'bytes per token']
  sources = {**table['sources'], **({'all': table['splits']} if len(table['sources']) > 1 else {})}
  rows = [[source, split, *(part[column] for column in ('documents', 'bytes', 'tokens', 'bytes_per_token'))]
          for source, splits in sources.items() for split, part in splits.items()]
  longest = ', '.join(piece['piece'].strip() for piece in table['longest'][:12])
  note = (f'{table["size"]:,} pieces, of which {table["unused"]["count"]:,} stand nowhere in the text. '
          f'{len(table["failures"])} documents do not survive encoding. {table["byte_share"]:.2%} of the tokens are single '
          f'bytes. The longest pieces in use: {longest}.')
  return Grid.of(head, rows, name), note


def corpus(table: dict[str, Any], name: str) -> Grid:
  """What came in, what each stage did and why, and what went out."""
  head = ['stage', 'what', 'documents', 'places', 'bytes', 'for example']
  rows = [['read', '', table['read']['documents'], None, table['read']['bytes'], '']]
  rows += [[row['stage'], f'{row["effect"]}: {row["reason"]}', row['documents'], row['places'], row['bytes'],
            row['examples'][:1]] for row in table['rows']]
  rows += [['written', f'{row["split"]} of {row["source"]}', row['documents'], None, row['bytes'], '']
           for row in table['written']]
  return Grid.of(head, rows, name)


def write(report: dict[str, Any], folder: Path) -> Path:
  """Writes report.json and report.html, and gives the path of the page."""
  write_json(folder / 'report.json', report)
  page = folder / 'report.html'
  temporary = page.with_suffix('.tmp')
  temporary.write_text(render(report), encoding='utf-8')
  return temporary.replace(page)
