"""The part of a report that is read from the folders of a run and of its ancestors. Measures nothing.

It needs no device and can be called while the run is going on: a hook that draws `render(collect(run, store))` now and
then shows the training as it is.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from model.count import flops_per_token, parameters
from train.artifact import Artifact, Store, digest, encode, lineage
from train.files import read_json
from train.lives import last_life, now

if TYPE_CHECKING:
  from train.run import Run

SCHEMA = 1
POINTS = 1000         # of a curve, at most
TRAINING = {name: name for name in ('loss', 'lr', 'grad_norm', 'tokens_per_s', 'mfu', 'accuracy')}
HELDOUT = {'heldout_loss': 'loss', 'heldout_bpb': 'bits_per_byte'}
ABSENT = {
  'training': 'metrics.jsonl has no line yet',
  'samples': 'the run wrote none: it has no watch.prompts, or has not come so far',
  'vocabulary': 'no ancestor of this run keeps a tokenizer with its report',
  'corpus': 'no ancestor of this run keeps a table of what was read and dropped',
  'environment': 'the folder keeps no lives.jsonl',
  'command': 'this report was not made by a command that can be given again',
  'heldout': 'not measured yet', 'baselines': 'not measured yet', 'latency': 'not measured yet',
  'failures': 'not measured yet',
}

Line = dict[str, Any]


def collect(run: 'Run', store: Store) -> dict[str, Any]:
  """The report as far as files tell it. Parts that have to be measured are empty, and `missing` says why."""
  folder = store.folder(run)
  lines = read_lines(folder / 'metrics.jsonl')
  report: dict[str, Any] = {
    'schema': SCHEMA, 'name': run.name, 'digest': digest(run), 'written': now(), 'command': None,
    'state': 'finished' if store.made(run) else 'unfinished',
    'headline': headline(run, lines), 'notes': notes(run, lines), 'missing': {},
    'training': columns(lines, TRAINING), 'heldout_curve': columns(lines, HELDOUT),
    'heldout': [], 'documents': [], 'baselines': [], 'latency': [], 'failures': [], 'evaluated': None, 'evaluation': [],
    'samples': samples(read_lines(folder / 'samples.jsonl')),
    'vocabulary': kept(run, store, 'tokenizer.model', 'report.json'),
    'corpus': kept(run, store, 'table.json', 'table.json'),
    'lineage': [ancestor(thing) for thing in lineage(run)],
    'environment': (last_life(folder) or {}).get('environment'),
  }
  return explain(report)


def explain(report: dict[str, Any], **reasons: str) -> dict[str, Any]:
  """The report with the reason for each part that is still empty."""
  return report | {'missing': {part: reasons.get(part, reason) for part, reason in ABSENT.items() if not report[part]}}


def read_lines(path: Path) -> list[Line]:
  """The records of a JSONL file by step, each step's last one of a kind: a resumed run writes some steps again.

  A line that was torn by a crash is passed over; a file that is not there has no lines.
  """
  records: dict[tuple, Line] = {}
  for text in path.read_text(encoding='utf-8').splitlines() if path.exists() else ():
    try:
      line = json.loads(text)
      records[line['step'], *sorted(line), line.get('prompt')] = line
    except (json.JSONDecodeError, KeyError, TypeError):
      continue
  return sorted(records.values(), key=lambda line: line['step'])


def columns(lines: Sequence[Line], names: Mapping[str, str]) -> dict[str, list[Any]]:
  """`{'step': [...], name: [...]}` of the lines that have any of the names; at most about `POINTS` of them, averaged.

  A number that is not finite, or is not there, is None. No lines, no columns.
  """
  chosen = [line for line in lines if names.keys() & line.keys()]
  width = -(-len(chosen) // POINTS)
  groups = [chosen[i:i + width] for i in range(0, len(chosen), width)] if chosen else []
  found = {name for line in chosen for name in names.keys() & line.keys()}
  return {'step': [group[-1]['step'] for group in groups]} | {
      title: [_mean([line.get(name) for line in group]) for group in groups]
      for name, title in names.items() if name in found} if groups else {}


def _mean(values: Sequence[float | None]) -> float | None:
  finite = [value for value in values if value is not None and math.isfinite(value)]
  return sum(finite) / len(finite) if finite else None


def headline(run: 'Run', lines: Sequence[Line]) -> dict[str, Any]:
  """Flat numbers: the run's size, how fast it went, how well it did last. What is measured later joins or replaces them."""
  steps = [line for line in lines if 'loss' in line]
  held = [line for line in lines if 'heldout_loss' in line]
  begins = [0, *(line['step'] for line in steps[:-1])]
  usual = steps[1:] or steps              # the first step also compiles
  rate, mfu = (median(line[name] for line in usual) if steps else 0.0 for name in ('tokens_per_s', 'mfu'))
  return {
    'steps': run.steps, 'step': steps[-1]['step'] if steps else 0,
    'parameters': parameters(run.model), 'vocabulary': run.model.vocab,
    'train_loss': steps[-1]['loss'] if steps else None,
    'heldout_loss': held[-1]['heldout_loss'] if held else None,
    'perplexity': math.exp(min(held[-1]['heldout_loss'], 700)) if held else None,
    'bits_per_byte': held[-1]['heldout_bpb'] if held and run.model.causal else None,
    'train_seconds': sum((line['step'] - begin) * line['seconds'] for line, begin in zip(steps, begins)) or None,
    'train_tokens': round(steps[-1]['step'] * steps[-1]['tokens_per_s'] * steps[-1]['seconds']) if steps else None,
    'tokens_per_s': rate or None, 'mfu': mfu or None,
    'peak_flops': rate * flops_per_token(run.model, run.rows.length) / mfu if mfu else None,    # what it is a share of
  }


def notes(run: 'Run', lines: Sequence[Line]) -> dict[str, str]:
  """A sentence under a heading, where the files suffice for one."""
  table = run.model.vocab * run.model.width
  return {
    'parameters': f'{table:,} of them in the embedding{", which is also the head" if run.model.tied else ""}',
    'training': 'Faint: means over the steps between two records. Strong: their moving average. Time spent in held-out '
                'evaluation, sampling and saving is not in the throughput.',
    'samples': 'Coloured: the prompt. What follows it was written by the model.',
    'bits_per_byte': 'As the run noted it last, on the held-out rows that it watches.',
    'heldout': 'Sums over all tokens, never means of means.',
    'corpus': 'What was read, what was dropped or changed, and why.',
    'lineage': 'All that this model comes from, parents first. A digest is the sha256 of all that it is made from.',
    'environment': 'The code and packages of the last start of the run.',
  }


def samples(lines: Sequence[Line]) -> list[dict[str, Any]]:
  """The samples of the last step that has any: {prompt, text, origin}."""
  last = [line for line in lines if line['step'] == lines[-1]['step']]
  return [{'prompt': line['prompt'], 'text': line['text'], 'origin': f'after step {line["step"]:,}'} for line in last]


def kept(run: Artifact, store: Store, sign: str, file: str) -> list[dict[str, Any]]:
  """What the run's ancestors whose folders have the file `sign` say of themselves in `file`."""
  folders = [(thing.name, store.folder(thing)) for thing in lineage(run)]
  return [{'name': name, 'table': read_json(folder / file)} for name, folder in folders
          if (folder / sign).exists() and (folder / file).exists()]


def ancestor(thing: Artifact) -> dict[str, Any]:
  """{name, kind, digest, settings}: parents stand in the settings as their names and digests."""
  settings = encode(thing, lambda child: f'{child.name}-{digest(child)[:10]}' if isinstance(child, Artifact) else None)
  return {'name': thing.name, 'kind': settings.pop('type'), 'digest': digest(thing), 'settings': settings}
