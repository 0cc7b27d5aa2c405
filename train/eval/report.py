"""A report on a finished run, as an artifact: its training curves, and what is measured on it now.

    report.json   flat numbers and tables, the same names for every run      report.html   the page to look at

The parts of report.json. What could not be measured is empty, and `missing` says why; seconds and bits, never rounded.

    schema, name, digest, written, command, state     of what run, when, and by which command
    headline        {name: number}: parameters, bits_per_byte, perplexity, tokens_per_s, gzip_bits_per_byte, ...
    notes, missing  {part: sentence}: how a part was measured, why it was not
    training        {'step': [...], 'loss': [...], 'lr': ...}: columns, means over at most 1,000 stretches
    heldout_curve   {'step': [...], 'loss': [...], 'bits_per_byte': [...]}: while it trained
    heldout         [{source, documents, bytes, tokens, loss, perplexity, bits_per_byte}]
    documents       [{rank, id, source, bytes, tokens, loss, perplexity, bits_per_byte}]: from the fewest bits per byte
                    (rank 1) to the most; of more than 40, the 20 best and the 20 worst
    baselines       [{name, bits_per_byte}]           latency   [{concurrency, prompt_tokens, first_token_p50, ...}]
    failures        [{name, count, of, rate, at_most, rule}]      samples   [{prompt, text, origin}]
    evaluated, evaluation   the folder of the evaluation, null without one, and its tasks as `train.eval.evaluation` has them,
                    without what each item gave; their figures are in the headline too: {'answers_exact_match': 0.31}
    vocabulary, corpus  [{name, table}]: as those artifacts keep them in their own folders
    lineage         [{name, kind, digest, settings}]  environment   code, packages and devices
"""

import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.errors import ConfigError
from train.artifact import Artifact, Store, digest, how, parents, read_json
from train.canonical import added
from train.data.document import Document, Split
from train.data.tokens import Tokens
from train.environment import devices
from train.eval import measure
from train.eval.baselines import LONGEST
from train.eval.ceiling import on_datasheet
from train.eval.collect import collect, explain
from train.eval.evaluation import FILE, Evaluation, headline
from train.eval.latency import Timing
from train.eval.measure import Answering, merged, within
from train.eval.render import write
from train.published import Published
from train.run import Run
from train.trained import load

BOTH_SIDES = 'this model reads from both sides: it gives a text no probability as a whole, and cannot go on with one'


@dataclass(frozen=True, kw_only=True)
class Report(Artifact):
  """The report on `run`. Whole held-out documents are used, until they have `heldout_bytes`."""

  run: Run
  heldout_bytes: int = 4_000_000
  overlap: float = 0.5                    # share of a window that is only read, so that no token lacks context
  orders: tuple[int, ...] = (5, 7)        # of the n-grams
  ngram_bytes: int = 64_000_000           # of training text that they count
  answering: Answering = Answering()
  timing: Timing = Timing()
  batch: int = how(16)                    # rows and answers at a time
  evaluation: Evaluation | None = added(None)     # of the same run

  def __post_init__(self):
    if isinstance(self.run, Published):
      raise ConfigError('report.published', f'run = {self.run.name}',
                        'a report tells of a training and of what was held out of its text, and others trained this model',
                        'measure it with Evaluation(run=..., tasks=(Foretelling(...), Answers(...))), which makes a page too: '
                        'see experiments/smollm2/evaluation_tiny.py')
    if not 0 <= self.overlap < 1:
      raise ConfigError('config.out-of-range', f'overlap = {self.overlap}', 'it is a share of a window, but not all',
                        'use 0 or more and less than 1')
    if not self.orders or not 1 <= min(self.orders) <= max(self.orders) <= LONGEST:
      raise ConfigError('config.out-of-range', f'orders = {self.orders}', f'n-grams have 1 to {LONGEST} bytes',
                        'use for example (5, 7)')
    if self.evaluation is not None and digest(self.evaluation.run) != digest(self.run):
      raise ConfigError('report.other-run', f'evaluation = {self.evaluation.name}', f'it is of {self.evaluation.run.name}, and '
                        f'the report of another run, {self.run.name}', 'evaluate the run that is reported on')

  def make(self, folder: Path, store: Store) -> None:
    write(self.measured(store), folder)

  def measured(self, store: Store) -> dict[str, Any]:
    """The report as a dict: what the folders tell, and all that can be measured on such a model."""
    report = collect(self.run, store) | {'command': shlex.join(['python', *sys.orig_argv[1:]])}
    report = merged(report, machine(report))
    if self.evaluation is not None:
      report = merged(report, tasks(self.evaluation, store))
    held = list(within(documents(self.run, store, 'heldout'), self.heldout_bytes))
    if not held:
      return explain(report, **dict.fromkeys(('heldout', 'baselines', 'latency', 'failures'), 'no text is held out'))
    train = within(documents(self.run, store, 'train'), self.ngram_bytes)
    report = merged(report, measure.baselines(train, held, self.orders))
    if not self.run.model.causal:
      return explain(report, **dict.fromkeys(('heldout', 'latency', 'failures'), BOTH_SIDES))
    for part in self.parts(store, held):
      report = merged(report, part)
    return explain(report | {'samples': report['samples'] + report.pop('answers')})

  def parts(self, store: Store, held: list[Document]) -> Iterator[measure.Part]:
    """What is measured with the trained model."""
    _, model, params, tokenizer, _ = load(self.run, store)
    length = self.run.rows.length
    stride = max(1, round(length * (1 - self.overlap)))
    yield measure.heldout(model, params, tokenizer, held, length, stride, self.batch)
    yield measure.answers(model, params, tokenizer, held, self.answering, self.batch)
    yield measure.waits(model, params, tokenizer, held, self.timing, self.answering.sampling)


def tasks(evaluation: Evaluation, store: Store) -> measure.Part:
  """The results of an evaluation, without the items."""
  folder = store.find(evaluation)
  found = read_json(folder / FILE)
  note = ('Lines: the middle 95% of 2,000 resamples of the items; tracks go from 0 to 1. What each item gave is in '
          f'{folder.name}, and experiments.compare sets two such folders side by side.')
  brief = [{part: value for part, value in task.items() if part not in ('ids', 'columns')} for task in found['tasks']]
  return {'evaluated': folder.name, 'evaluation': brief, 'headline': headline(found), 'notes': {'tasks': note}}


def documents(run: Run, store: Store, split: Split) -> Iterator[Document]:
  """The documents of that split of every corpus that the run's rows are made of."""
  corpora = {digest(tokens.corpus): tokens.corpus for tokens in parents(run.rows) if isinstance(tokens, Tokens)}
  for corpus in corpora.values():
    yield from corpus.documents(store.find(corpus), split)


def machine(report: dict[str, Any]) -> measure.Part:
  """The devices that are here, and what the run's MFU is a share of."""
  here = devices()
  known = on_datasheet(here['kind']) is not None
  origin = f', from the datasheet of {here["kind"]}' if known else ', measured with matrix products when the run began'
  return {'environment': (report['environment'] or {}) | {'measured on': here}, 'notes': {'peak': origin}}
