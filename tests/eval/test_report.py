"""The report: what is read from a run's folder, and a page that shows all of it, obeys none of it and loads nothing."""

import copy
import json
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import ClassVar

import numpy as np
import pytest

from model.config import Attention, Decoder, Gated
from model.count import flops_per_token, parameters
from model.errors import ConfigError
from train.artifact import Artifact, Store, digest, write_json
from train.eval.collect import ABSENT, POINTS, collect, columns, read_lines
from train.eval.evaluation import Evaluation
from train.eval.measure import merged
from train.eval.render import NONE, SECTIONS, bars, documents, figures, render, summary, tiles, write
from train.eval.report import Report, tasks
from train.eval.task import Taken, Task
from train.lives import begin

HOSTILE = '<script>alert(1)</script>\x1b[2J\u202e"onload="x" & <img src=http://evil/>'


@dataclass(frozen=True)
class Lines:
  """Rows, as far as a report looks at them."""

  length: int = 64


@dataclass(frozen=True, kw_only=True)
class Kept(Artifact):
  """An ancestor that keeps some files."""

  size: int = 300

  def make(self, folder, store):
    part = {'documents': 11, 'bytes': 3400, 'tokens': 1059, 'bytes_per_token': 3.21}
    write_json(folder / 'report.json', {
      'size': 300, 'splits': {'train': part}, 'sources': {HOSTILE: {'train': part}}, 'failures': [], 'byte_share': 0.0123,
      'unused': {'count': 3, 'pieces': []}, 'longest': [{'piece': HOSTILE, 'count': 5}]})
    (folder / 'tokenizer.model').write_bytes(b'')
    write_json(folder / 'table.json', {
      'read': {'documents': 12, 'bytes': 3456},
      'rows': [{'place': 0, 'stage': 'dedupe', 'effect': 'dropped', 'reason': 'copy', 'documents': 1, 'places': 1,
                'bytes': -56, 'examples': [HOSTILE]}],
      'written': [{'source': HOSTILE, 'split': 'train', 'documents': 11, 'bytes': 3400}]})


@dataclass(frozen=True, kw_only=True)
class Trained(Artifact):
  """A run, as far as a report looks at it: it writes the files that training writes."""

  vocabulary: Kept
  model: Decoder = Decoder(vocab=300, width=16, layers=1, attention=Attention(2, 1, 8), mlp=Gated(32), tied=True)
  rows: Lines = Lines()
  steps: int = 30

  def make(self, folder, store):
    with open(folder / 'metrics.jsonl', 'w') as file:
      for step in range(1, 31):
        line = {'step': step, 'time': 1.0 * step, 'loss': 5 / step, 'grad_norm': 1.0, 'lr': 0.1, 'seconds': 0.5,
                'tokens_per_s': 1000.0 + step, 'mfu': (1000.0 + step) / 4000}
        file.write(json.dumps(line) + '\n')
        if step % 10 == 0:
          file.write(json.dumps({'step': step, 'time': 0, 'heldout_loss': 6 / step, 'heldout_bpb': 3 / step}) + '\n')
      file.write('{"step": 31, "lo')                                  # torn by a kill
    with open(folder / 'samples.jsonl', 'w') as file:
      for step in (10, 20):
        file.write(json.dumps({'step': step, 'time': 0, 'prompt': 'Once', 'text': f' upon {step} {HOSTILE}'}) + '\n')


@pytest.fixture
def store(tmp_path):
  return Store(tmp_path)


@pytest.fixture
def run(store):
  run = Trained(name='a-run', vocabulary=Kept(name='words'))
  store.make(run)
  return run


@pytest.fixture
def full(run, store):
  """A report in which nothing is missing."""
  report = collect(run, store) | {'command': f'python -m x "{HOSTILE}"'}
  shares = {f'{part}_token_{p}': 0.001 for part in ('first', 'next') for p in ('p50', 'p95', 'p99')}
  score = {'documents': 1, 'bytes': 1, 'tokens': 1, 'perplexity': None, 'bits_per_byte': 1.5}
  waits = {'concurrency': 1, 'prompt_tokens': 16, 'new_tokens': 8, 'requests': 3, 'tokens_per_s': 800.0}
  report |= {
    'baselines': [{'name': 'gzip', 'bits_per_byte': 2.5}, {'name': '5-gram', 'bits_per_byte': 1.75}],
    'heldout': [{'source': HOSTILE} | score], 'latency': [waits | shares],
    'failures': [{'name': 'empty', 'rule': 'no text', 'count': 0, 'of': 9, 'rate': 0.0, 'at_most': 0.3}], 'missing': {}}
  report['headline'] |= {
    'bits_per_byte': 1.5, 'perplexity': 20.0, 'gzip_bits_per_byte': 2.5, 'ngram_bits_per_byte': 1.75,
    'first_token_p50': 0.004, 'next_token_p50': 0.001, 'decode_tokens_per_s': 5000.0, 'decode_concurrency': 8}
  return report


class Page(HTMLParser):
  """The tags of a page with their attributes, and its text."""

  def __init__(self, text):
    super().__init__()
    self.tags, self.text = [], ''
    self.feed(text)

  def handle_starttag(self, tag, attributes):
    self.tags.append((tag, dict(attributes)))

  def handle_data(self, data):
    self.text += data


def test_the_folder_s_numbers_arrive(run, store):
  report = collect(run, store)
  head = report['headline']
  assert report['digest'] == digest(run) and report['state'] == 'finished'
  assert (head['step'], head['steps'], head['parameters']) == (30, 30, parameters(run.model))
  assert head['train_seconds'] == pytest.approx(15.0) and head['tokens_per_s'] == 1016.0
  assert head['mfu'] == pytest.approx(0.254)
  assert head['peak_flops'] == pytest.approx(4000 * flops_per_token(run.model, 64))
  assert report['training']['step'] == list(range(1, 31)) and report['training']['loss'][:2] == [5.0, 2.5]
  assert report['heldout_curve'] == {'step': [10, 20, 30], 'loss': [0.6, 0.3, 0.2], 'bits_per_byte': [0.3, 0.15, 0.1]}
  assert [sample['text'] for sample in report['samples']] == [f' upon 20 {HOSTILE}']
  assert [thing['name'] for thing in report['lineage']] == ['words', 'a-run']
  assert report['lineage'][1]['settings']['vocabulary'] == f'words-{digest(run.vocabulary)[:10]}'
  assert report['vocabulary'][0]['table']['size'] == 300 and report['corpus'][0]['table']['read']['documents'] == 12


def test_a_resumed_run_counts_each_step_once_by_its_last_line(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  lines = [{'step': 1, 'loss': 4.0}, {'step': 2, 'loss': 3.0}, {'step': 2, 'heldout_loss': 9.0},
           {'step': 2, 'loss': 2.5}]
  path.write_text('\n'.join(map(json.dumps, lines)) + '\nnull\n[1]\n')
  assert read_lines(path) == [{'step': 1, 'loss': 4.0}, {'step': 2, 'loss': 2.5}, {'step': 2, 'heldout_loss': 9.0}]
  assert read_lines(tmp_path / 'none.jsonl') == []


def test_long_curves_are_averaged_and_what_is_not_finite_is_left_out():
  lines = [{'step': i + 1, 'loss': float(i) if i % 7 else float('nan')} for i in range(5 * POINTS)]
  made = columns(lines, {'loss': 'loss'})
  assert len(made['step']) == POINTS and made['step'][-1] == 5 * POINTS
  assert made['loss'][0] == 2.5                                       # of nan, 1, 2, 3, 4
  assert columns([{'step': 1, 'loss': float('inf')}], {'loss': 'loss'}) == {'step': [1], 'loss': [None]}
  assert columns(lines, {'other': 'other'}) == {}


def test_a_run_that_has_just_begun_has_a_page_that_says_what_is_missing(store):
  run = Trained(name='new', vocabulary=Kept(name='words'))
  begin(store.place(run), {}, digest(run))
  report = collect(run, store)
  assert report['state'] == 'unfinished'
  page = Page(render(report))
  assert 'not finished: step 0 of 30' in page.text
  for part in ('training', 'samples', 'latency', 'failures', 'heldout', 'baselines', 'command'):
    assert ABSENT[part] in page.text
  assert page.text.count('Missing: ') == len(report['missing']) + 1   # held-out text is missed in two places


def test_every_section_is_there_and_reached(full):
  page = Page(render(full))
  ids = {attributes['id'] for tag, attributes in page.tags if tag == 'h2'}
  links = {attributes['href'][1:] for tag, attributes in page.tags if tag == 'a'}
  assert ids == links == set(SECTIONS)
  assert 'Missing' not in page.text
  assert len([tag for tag, _ in page.tags if tag == 'svg']) == len(figures(full)) == 6
  for words in ('1.500', '20.0', '4.00 ms', '40% fewer than gzip', 'dropped: copy', '3.21', '1.23% of the tokens'):
    assert words in page.text, words


def test_nothing_is_loaded_and_no_text_is_obeyed(full):
  text = render(full)
  page = Page(text)
  assert not {'script', 'img', 'iframe', 'object', 'embed', 'base', 'form'} & {tag for tag, _ in page.tags}
  for tag, attributes in page.tags:
    assert not [name for name in attributes if name.startswith('on')], (tag, attributes)
    for name in ('src', 'href', 'xlink:href', 'data', 'action', 'srcset'):
      assert attributes.get(name, '#').startswith(('#', 'data:,')), (tag, attributes)
  assert not re.search(r'url\((?!#)|@import', text)
  assert "default-src 'none'" in text
  assert '\x1b' not in text and '\u202e' not in text
  assert page.text.count('<script>alert(1)</script>') >= 5            # as words, wherever it was handed in
  assert page.text.count('\\x1b[2J\\u202e') >= 5


def test_the_page_is_a_function_of_the_file(full, tmp_path):
  path = write(full, tmp_path)
  assert path == tmp_path / 'report.html' and not list(tmp_path.glob('*.tmp'))
  assert path.read_text() == render(json.loads((tmp_path / 'report.json').read_text()))


def test_an_evaluation_has_a_section_of_its_own(full, run, store, monkeypatch):
  taken = Taken(['a', 'b'], {'truth': np.array([0, 1]), 'said': np.array([0, 0])}, (HOSTILE, 'b'),
                ({'question': HOSTILE, 'answer': HOSTILE, 'wanted': HOSTILE},))

  @dataclass(frozen=True, kw_only=True)
  class Told(Task):
    figures: ClassVar = ('weighted_f1', 'accuracy')

    def take(self, trained, store):
      return taken

  monkeypatch.setattr('train.eval.evaluation.load', lambda run, store: None)
  evaluation = Evaluation(name='tasks', run=run, tasks=(Told(name='two-classes'),))
  store.make(evaluation)
  part = tasks(evaluation, store)
  assert part['headline'] == {'two_classes_weighted_f1': pytest.approx(1 / 3), 'two_classes_accuracy': 0.5}
  assert part['evaluated'] == store.folder(evaluation).name and 'ids' not in part['evaluation'][0]
  text = render(json.loads(json.dumps(merged(full, part))))
  page = Page(text)
  assert {attributes['id'] for tag, attributes in page.tags if tag == 'h2'} == {'tasks', *SECTIONS}
  assert 'weighted F1' in page.text and '0.500' in page.text and 'side by side' in page.text
  assert '\x1b' not in text and 'script' not in {tag for tag, _ in page.tags}
  with pytest.raises(ConfigError, match='another run'):
    Report(name='r', run=Trained(name='other', vocabulary=Kept(name='words', size=3)), evaluation=evaluation)
  assert digest(Report(name='r', run=run)) != digest(Report(name='r', run=run, evaluation=evaluation))


def test_the_headline_is_flat(full):
  assert all(value is None or isinstance(value, int | float) for value in full['headline'].values())


def ranked(*ranks: int) -> list[dict]:
  return [{'rank': rank, 'id': f'{rank}{HOSTILE}', 'source': 's', 'bytes': 10 * rank, 'tokens': 5, 'loss': 1.0,
           'perplexity': 2.7, 'bits_per_byte': rank / 4} for rank in ranks]


def test_documents_fold_out_best_and_worst_first(full):
  full['headline']['heldout_documents'] = 50
  shown = documents(full | {'documents': ranked(1, 2, 3, 48, 49, 50)})
  assert shown.title == 'the 3 best and the 3 worst of 50 documents'
  assert [[row[0] for row in grid.rows] for grid in shown.grids] == [[1, 2, 3], [50, 49, 48]]
  few = documents(full | {'documents': ranked(1, 2)})
  assert few.title == 'each of the 2 documents, best first' and [len(grid.rows) for grid in few.grids] == [2]
  assert documents({**full, 'documents': []}) is None
  page = Page(render(full | {'documents': ranked(1, 2, 3, 48, 49, 50)}))
  folded = [attributes for tag, attributes in page.tags if tag == 'details' and attributes.get('class') == 'more']
  assert folded == [{'class': 'more'}], 'there, and not open'
  assert page.text.count('<script>') >= 6 and '12.500' in page.text and shown.title in page.text


def test_a_report_from_before_documents_were_told_apart_is_drawn_still(full):
  del full['documents']
  assert 'documents, best first' not in render(full)


def test_bars_go_from_best_to_worst(full):
  assert [(bar.name, bar.width, bar.ours) for bar in bars(full)] == [
    ('this model', '60.0', True), ('5-gram', '70.0', False), ('gzip', '100.0', False)]


def test_the_sentence_says_only_what_is_known(full):
  assert summary(full['headline']).endswith('saw: 40% fewer than gzip and 14% fewer than the best n-gram model.')
  worse = full['headline'] | {'bits_per_byte': 2.75, 'ngram_bits_per_byte': None}
  assert summary(worse).endswith('never saw: 10% more than gzip.')
  assert summary({}) == 'This model, not yet measured on unseen text.'


def test_a_tile_without_a_number_is_a_dash(full):
  report = copy.deepcopy(full)
  report['headline'] |= {'mfu': None, 'decode_tokens_per_s': None}
  lacking = [tile.name for tile in tiles(report) if tile.note == 'not measured']
  assert lacking == ['Share of peak (MFU)', 'Answering speed']
  report['headline']['mfu'] = 1.2
  assert [tile.value for tile in tiles(report) if 'busy machine' in tile.note] == [NONE]
