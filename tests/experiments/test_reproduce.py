"""A real training of seconds: reproduced bit for bit, and sampled from."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import grain  # noqa: F401  it defines flags, which must be there before any flagsaver, or go with it
import pytest
from absl.testing import flagsaver

from experiments import command, launch, reproduce, sample
from experiments.pretrain.encoder_tiny import get_config as get_encoder
from experiments.sample import until
from model.errors import UserError
from train.artifact import digest, encode
from train.lives import begin

ROOT = Path(__file__).parents[2]
TINY = """
from dataclasses import replace
from model.sizes import llama
from train.data.corpus import Corpus
from train.data.readers import TextFiles
from train.data.rows import Rows
from train.data.tokens import Tokens
from train.data.vocabulary import Vocabulary
from train.run import Run, Saving, Watch

def get_config():
  corpus = Corpus(name='speeches', sources=(TextFiles('{text}', source='speeches'),), stages=(), heldout_modulo=2)
  vocabulary = Vocabulary(name='pieces', corpus=corpus, size=400)
  rows = Rows(Tokens(name='tokens', corpus=corpus, vocabulary=vocabulary), length=16)
  return Run(name='tiny', model=llama(400, width=16, layers=1, count=1), rows=rows, batch=8, steps=8,
             watch=Watch(metrics=1, heldout=4, heldout_rows=8), saving=Saving(every=3))
"""


def go(program, *argv: str) -> int:
  with flagsaver.flagsaver():
    return program.main(command.parse([program.__name__, *argv]))


@pytest.fixture(scope='module')
def run(tmp_path_factory) -> Path:
  """The folder of a run that is made."""
  folder = tmp_path_factory.mktemp('tiny')
  (folder / 'tiny.py').write_text(TINY.format(text=ROOT / 'tests' / 'data' / 'sample' / '*.txt'))
  assert go(launch, f'--config={folder / "tiny.py"}', f'--runs={folder / "runs"}') == 0
  [made] = (folder / 'runs').glob('tiny-*')
  return made


def test_a_second_training_is_equal_to_the_bit_and_leaves_nothing(run, tmp_path, capsys):
  before = sorted(path for path in run.parent.rglob('*'))
  assert go(reproduce, f'--run={run}') == 0
  assert 'equal to the bit: 8 steps' in capsys.readouterr().out
  assert sorted(path for path in run.parent.rglob('*')) == before


def test_a_few_steps_of_it_reuse_what_it_came_from(run, tmp_path, capsys):
  assert go(reproduce, f'--run={run}', '--steps=2', f'--to={tmp_path}') == 0
  steps = int(re.search(r'equal to the bit: (\d+) steps', capsys.readouterr().out)[1])
  assert 2 <= steps <= 8
  assert [path.name for path in tmp_path.iterdir()] == [run.name]


def test_told_to_leave_by_others_it_says_how_to_go_on_and_no_verdict(run, tmp_path, capsys):
  with pytest.raises(UserError) as caught, reproduce.asked_to_leave(tmp_path / run.name / 'ledger.jsonl', 2):
    go(reproduce, f'--run={run}', f'--to={tmp_path}')
  assert caught.value.exit_code == 75 and f'--to={tmp_path}' in str(caught.value)
  assert 'equal' not in capsys.readouterr().out
  assert go(reproduce, f'--run={run}', f'--to={tmp_path}') == 0 and 'equal to the bit: 8 steps' in capsys.readouterr().out


def test_from_scratch_all_of_it_is_made_again(run, tmp_path):
  assert go(reproduce, f'--run={run}', '--steps=1', '--from_scratch', f'--to={tmp_path}') == 0
  assert {path.name for path in tmp_path.iterdir()} == {path.name for path in run.parent.iterdir()}


def test_one_bit_that_differs_is_found_and_shown(run, tmp_path, capsys):
  ledger = run / 'ledger.jsonl'
  text = ledger.read_text()
  lines = [json.loads(line) for line in text.splitlines()]
  [line] = [line for line in lines if line.get('step') == 5]
  value = float.fromhex(line['loss'])
  line['loss'] = (value + 2.0**-20).hex()
  try:
    ledger.write_text(''.join(json.dumps(each) + '\n' for each in lines))
    assert go(reproduce, f'--run={run}', f'--to={tmp_path}') == 1
  finally:
    ledger.write_text(text)
  said = capsys.readouterr().out
  assert 'step 5 is the first of 8 that differs' in said and line['loss'] in said and value.hex() in said


@pytest.mark.parametrize('argv, id', [
    (['--run={run}', '--config.steps=3'], 'config.no-overrides'), (['--run={run}/..'], 'config.no-run'),
    (['--run='], 'config.no-run'), (['--run={run}', '--to={run}/..'], 'config.same-folder'),
])
def test_mistakes_are_told(run, argv, id):
  with pytest.raises(UserError) as caught:
    go(reproduce, *(word.format(run=run) for word in argv))
  assert caught.value.id == id


def test_sampling_is_repeatable(run, capsys):
  said = []
  for seed in (1, 1, 2):
    assert go(sample, f'--run={run}', '--prompt=The people', '--prompt=War', '--max_new=20', f'--seed={seed}') == 0
    said.append(capsys.readouterr().out)
  assert said[0] == said[1] != said[2]
  first, second = re.split(r'\n-+\n', said[0])
  assert first.startswith('The people') and second.startswith('War') and len(first) > 20


def test_ctrl_c_ends_what_it_says_with_one_line(run):
  signal.signal(signal.SIGINT, signal.default_int_handler)       # a background job may ignore it, and so its children
  command = [sys.executable, '-m', 'experiments.sample', f'--run={run}', '--prompt=The people', '--max_new=4000']
  with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
    assert process.stdout.read(12).startswith('The people')
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1].splitlines()
  assert process.returncode == 130 and said[0].startswith('warning') and said[1:] == ['interrupted']


def test_a_folder_that_is_no_run_cannot_be_sampled(run, tmp_path):
  [corpus] = run.parent.glob('speeches-*')
  for folder in (tmp_path, corpus):
    with pytest.raises(UserError, match=r'runs/NAME|no model') as caught:
      go(sample, f'--run={folder}', '--prompt=x')
    assert caught.value.id == 'config.no-run'


def test_a_folder_that_is_not_quite_named_is_found_by_its_name(run, tmp_path):
  mistaken = [(run.parent / 'tiny', 'no such folder'), (run / 'run.json', 'it is a file'), (f'{run}0', 'no such folder')]
  for given, why in mistaken:
    with pytest.raises(UserError, match=re.escape(f'such as {run};')) as caught:
      go(sample, f'--run={given}', '--prompt=x')
    assert why in caught.value.why
  with pytest.raises(UserError, match='no folder was named'):
    go(sample, '--prompt=x')


ODD = [         # flags of sample, id, words
    (['--prompt=x', '--temperature=-1'], 'config.bad-value', 'temperature'),
    (['--prompt=x', '--temperature=1e-40'], 'config.bad-value', 'use 0, which takes the best id'),
    (['--prompt=x', '--top_p=0'], 'config.bad-value', 'top_p'),
    (['--prompt=x', '--max_new=0'], 'config.bad-flag', '--max_new=0'),
    (['--prompt=x', '--max_new=1000000000000'], 'config.bad-flag', '--max_new=1000000000000'),
    (['--prompt=x', '--seed=99999999999999999999'], 'config.bad-flag', '--seed=9999'),
    (['--prompt=caf\udce9'], 'data.not-utf8', 'at character 4'),
    (['--prompt=x', '--config.steps=9'], 'config.no-overrides', 'experiments.launch'),
]


@pytest.mark.parametrize('argv, id, words', ODD, ids=[' '.join(argv).encode('ascii', 'replace').decode() for argv, *_ in ODD])
def test_odd_flags_get_one_message(run, argv, id, words):
  with pytest.raises(UserError) as caught:
    go(sample, f'--run={run}', *argv)
  assert caught.value.id == id and words in str(caught.value)


@pytest.mark.parametrize('prompt, max_new, beyond', [('War', 3, False), ('War', 16, True), ('War ' * 20, 1, True)])
def test_more_tokens_than_were_learnt_at_once_are_said_in_a_line(run, capsys, prompt, max_new, beyond):
  assert go(sample, f'--run={run}', f'--prompt={prompt}', f'--max_new={max_new}') == 0
  said = capsys.readouterr().err
  assert bool(said) == beyond
  if beyond:
    found = re.fullmatch(r'warning: a prompt of (\d+) tokens and --max_new=(\d+) make (\d+) tokens at once, '
                         r'and tiny has learnt to read 16: .*\n', said)
    asked, more, all_of_them = map(int, found.groups())
    assert asked + more == all_of_them > 16 and more == max_new


def test_no_prompt_at_all_begins_a_text(run, capsys):
  assert go(sample, f'--run={run}', '--prompt=', '--max_new=5') == 0
  assert capsys.readouterr().out.endswith('\n')


def test_a_bidirectional_model_cannot_continue_a_text(tmp_path):
  encoder = get_encoder()
  begin(tmp_path / 'encoder', encode(encoder), digest(encoder))
  with pytest.raises(UserError, match='both sides') as caught:
    go(sample, f'--run={tmp_path / "encoder"}', '--prompt=x')
  assert caught.value.id == 'config.not-causal'


def test_a_closed_pipe_ends_it_quietly(run):
  command = [sys.executable, '-m', 'experiments.sample', f'--run={run}', '--prompt=The people', '--max_new=500']
  with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as job:
    assert job.stdout.read(3) == 'The'
    job.stdout.close()
    assert re.fullmatch(r'(warning: .*\n)?', job.stderr.read()) and job.wait(400) == 0


STOPS = [([], 'one two three'), (['two'], 'one two'), (['o t'], 'one two t'), (['zz'], 'one two three'),
         (['three', 'e t'], 'one t'), ([''], 'one two three')]


@pytest.mark.parametrize('stops, text', STOPS)
def test_a_stop_is_seen_wherever_it_is_cut(stops, text):
  whole = 'one two three'
  for size in (1, 2, 3, 5, 13):
    parts = (whole[start:start + size] for start in range(0, len(whole), size))
    assert ''.join(until(parts, stops)) == text
