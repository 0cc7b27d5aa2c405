"""Records of the GPU benchmark for people: a short line as each comes, and a table of all at the end."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments.bench.gpu.bench import Record
from experiments.bench.page_gpu import ceiling

FILE = 'gpu.jsonl'
TOLD = ('machine', 'tests', 'ceilings', 'head', 'decode', 'lowbit', 'tiles', 'quickstart', 'checkpoint')     # in a line each
LONG = ('losses', 'form', 'load', 'code', 'versions')              # too long for a line


def append(out: Path, record: Record) -> Record:
  """Adds the record to the folder's file and gives it back."""
  with (out / FILE).open('a') as file:
    print(json.dumps(record), file=file, flush=True)
  return record


def short(record: Record) -> str:
  """The record in a line: `task 124m  contestant ours whole  seconds 0.0812  ...`; of what failed, the last that it wrote."""
  words = [f'{name} {last_line(value, 300) if name == "failed" else number(value)}' for name, value in record.items()
           if not (name in LONG and not isinstance(value, str)) and name != 'part' and value is not None]
  return '  '.join(words)[:600]


def number(value: Any) -> str:
  """A float with four digits; anything else as it is."""
  if isinstance(value, float):
    return f'{value:.4g}'
  if isinstance(value, dict):
    return '{' + ', '.join(f'{name}: {number(each)}' for name, each in value.items()) + '}'
  return str(value)


def show(out: Path) -> None:
  """Prints the tables of the last record of each kind."""
  records = [json.loads(line) for line in (out / FILE).read_text().splitlines()]
  top = ceiling(records, 'bfloat16 product', 'tflops')
  console = Console(width=150)
  trained(records, top, console)
  attended(records, console)
  for record in records:
    if record['part'] in TOLD and 'took_s' not in record:
      console.print(f'{record["part"]}: {short(record)}', markup=False, highlight=False, soft_wrap=True)
  took = {record['part']: record['took_s'] for record in records if 'took_s' in record}
  console.print(f'seconds: {number({name: round(each) for name, each in took.items()})}', markup=False, highlight=False)


def trained(records: list[Record], top: float | None, console: Console) -> None:
  """The training step: a row for each size and contestant."""
  rows = {(r['task'], r['contestant']): r for r in records if r['part'] in ('train', 'variants') and 'contestant' in r}
  table = Table('task', 'contestant', 'ms/step', 'tokens/s', 'MFU', 'of the ceiling', 'spread', 'peak GB', 'losses apart',
                'attention', title='training step, bfloat16', title_justify='left')
  for (task, contestant), r in rows.items():
    if 'failed' in r:
      table.add_row(task, contestant, 'failed', *[''] * 6, last_line(r['failed']))
      continue
    share = f'{r["tflops"] / top:.1%}' if top else ''
    table.add_row(task, contestant, f'{1e3 * r["seconds"]:.1f}', f'{r["tokens_per_s"]:,.0f}', f'{r["mfu"]:.1%}', share,
                  f'{r["spread"]:.0%}', f'{r.get("peak_gb", 0):.1f}', f'{r["apart"]:.2g}{"" if r["equal"] else " UNEQUAL"}',
                  r.get('attention', '').partition(' ')[0] + (' (fmha)' if r.get('fused_attention') else ''))
  if rows:
    console.print(table)


def attended(records: list[Record], console: Console) -> None:
  """Attention: a row for each shape and form."""
  rows: dict[tuple[str, str], dict[bool, Record]] = {}
  for r in records:
    if r['part'] == 'attention' and 'sight' in r:
      rows.setdefault((r['sight'], r['form'] + (' *' if r.get('chosen') else '')), {})[r['backward']] = r
  table = Table('rows', 'form (* the door\'s choice)', 'forward, TFLOP/s', 'with backward, TFLOP/s', title='attention',
                title_justify='left')
  for (sight, form), both in rows.items():
    cells = [f'{r["tflops"]:.0f}' if 'tflops' in r else last_line(r.get('failed', '')) for r in
             (both.get(False, {}), both.get(True, {}))]
    table.add_row(sight, form, *cells)
  if rows:
    console.print(table)


def last_line(text: str, most: int = 60) -> str:
  """The last line of what a program wrote, in few letters."""
  return (text.strip().splitlines() or [''])[-1][:most]
