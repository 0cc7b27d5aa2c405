"""Two processes launch a report: what one makes alone and what both make together stand in each other's way nowhere."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.load import load as read
from tests.campaign.lineage import get_config
from train.artifact import Store, lineage
from train.eval.measure import within
from train.eval.perplexity import Score, score_documents
from train.eval.report import documents
from train.trained import load

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / 'tests' / 'campaign' / 'lineage.py'


def launched(runs: Path) -> list[tuple[int, str]]:
  """Exit code and errors of each of two processes that launch it together."""
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  environment = os.environ | {'XLA_FLAGS': os.environ['XLA_FLAGS'] + ' --xla_force_host_platform_device_count=1',
                              'JAX_PLATFORMS': 'cpu',
                              'JAX_COMPILATION_CACHE_DIR': str(ROOT / '.cache' / 'jax')}
  command = [sys.executable, '-m', 'experiments.launch', f'--config={CONFIG}', f'--runs={runs}',
             f'--coordinator=127.0.0.1:{port}', '--processes=2']
  jobs = [subprocess.Popen([*command, f'--process={process}'], cwd=ROOT, env=environment, text=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for process in (1, 0)]
  try:
    said = [job.communicate(timeout=400)[1] for job in jobs]
  finally:
    for job in jobs:
      job.kill()
  return [(job.returncode, err) for job, err in zip(jobs, said)]


@pytest.fixture(scope='module')
def runs(module_path) -> Path:
  results = launched(module_path / 'runs')
  assert [code for code, _ in results] == [0, 0], '\n'.join(err for _, err in results)
  return module_path / 'runs'


def test_each_thing_is_made_once(runs):
  store, report = Store(runs), get_config()
  assert all(store.made(thing) for thing in lineage(report))
  for folder in runs.iterdir():
    assert len((folder / 'lives.jsonl').read_text().splitlines()) == 1, folder


def test_what_was_noted_while_both_trained(runs):
  folder = Store(runs).folder(get_config().run)
  lines = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
  assert [line['step'] for line in lines if 'heldout_bpb' in line] == [1, 2]
  samples = [json.loads(line) for line in (folder / 'samples.jsonl').read_text().splitlines()]
  assert [(line['step'], line['prompt']) for line in samples] == [(1, 'The'), (1, 'A'), (2, 'The'), (2, 'A')]
  assert all(line['text'] for line in samples)


def test_a_parent_is_restored_on_another_mesh_and_rewrites_text(runs):
  store, run = Store(runs), get_config().run
  child, writer = (load(each, store) for each in (run, run.restore))
  assert (child.step, writer.step) == (2, 1)
  corpus = run.rows.tokens.corpus
  texts = [{document.text for document in each.documents(store.find(each), 'train')}
           for each in (run.restore.rows.tokens.corpus, corpus)]
  assert texts[0] < texts[1]


def test_the_report_of_one_of_two_says_what_a_lone_process_measures(runs):
  store, report = Store(runs), read(str(Store(runs).folder(get_config()) / 'run.json'))
  told = json.loads((store.folder(report) / 'report.json').read_text())
  _, model, params, tokenizer, _ = load(report.run, store)
  held = list(within(documents(report.run, store, 'heldout'), report.heldout_bytes))
  score = sum(score_documents(model, params, tokenizer, held, length=16, stride=8, batch=2), Score())
  assert told['state'] == 'finished' and told['headline']['bits_per_byte'] == pytest.approx(score.bits_per_byte, abs=1e-4)
  assert told['latency'] and told['failures'] and len(told['samples']) == 3
