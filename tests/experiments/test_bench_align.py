"""Laws of the benchmarks of alignment: an iteration's phases are all of it, sizes are fixed, a peer says the same losses.

The peer is TRL in an environment of its own; its tests are skipped by name where that is absent.
"""

import json
import os
import subprocess
from collections import defaultdict

import jax
import numpy as np
import pytest

from experiments.bench import rlhf, tune
from experiments.bench.driver import ROOT, Race
from experiments.bench.line import apart
from experiments.bench.ours.lineage import Bare, Digits, Lineage, Unending
from experiments.bench.ours.model import write_batches
from experiments.bench.ours.rlhf import PHASES, Counted, Rlhf
from experiments.bench.ours.tune import Tune, batches, write_pairs
from experiments.bench.setting import Setting
from experiments.bench.show import phases
from experiments.bench.task import ITERATIONS, TASKS
from model.chat import ends
from tests.peers.of import python_of
from train.objectives import shift

TASK, IT = TASKS['tiny'], ITERATIONS['tiny']


@pytest.fixture(scope='module')
def grpo(tmp_path_factory):
  """A program that has prepared GRPO, the sample of an iteration, and the losses that it compares."""
  program = Rlhf(tmp_path_factory.mktemp('grpo'), TASK, IT, 'grpo')
  losses = program.prepare()['losses']
  yield program, program.step(), losses
  program.source.close()


def test_the_phases_add_up_to_the_iteration(grpo):
  _, sample, _ = grpo
  assert sum(sample[name] for name in (*PHASES, 'host')) == pytest.approx(sample['wall'], rel=1e-6)
  assert sample['reference'] == 0 and min(sample[name] for name in ('sampling', 'scoring', 'judging', 'update', 'host')) > 0


def test_every_prompt_and_every_answer_has_its_tokens(grpo):
  program, sample, _ = grpo
  buffer = program.source.buffer
  assert sample['answer_tokens'] == IT.tokens and (buffer['segments'] == 1).all()
  assert buffer['mask'].shape == (IT.answers, IT.prompt + IT.answer) and buffer['mask'][:, :IT.prompt].sum() == 0
  assert np.ptp(buffer['seen/reward']) > 0 and buffer['seen/sampler_gap'].max() < 1e-4


def test_no_id_ends_an_answer(grpo):
  program, *_ = grpo
  tokenizer = program.source.crew.writer.tokenizer
  assert isinstance(tokenizer, Unending) and tokenizer.size == TASK.vocab
  ending = ends(Bare(), tokenizer)
  assert min(ending.eos, *(sequence[-1] for sequence in ending.stop), tokenizer.size) == tokenizer.size
  assert len(program.source.crew.writer.prompt(Digits(IT.prompt).open(program.source.setting.store, 'train')(3))) == IT.prompt


def test_seconds_go_to_the_phase_that_the_arguments_say():
  seconds = defaultdict(float)
  reader = Counted(lambda params, rows: rows + 1, lambda params, rows: 'reference' if params else 'scoring', seconds)
  assert [reader(False, 1), reader(False, 2)] == [2, 3] and list(seconds) == ['scoring']
  first = seconds['scoring']
  assert reader(True, 5) == 6 and seconds['reference'] > 0 and seconds['scoring'] == first > 0


def test_ppo_has_a_critic_a_reference_and_a_reward_model_of_the_policys_size():
  run = Lineage(TASK, IT).ppo
  built = run.build(jax.devices()[:1])
  held = run.rows.holds(run, built)
  sizes = {name: sum(leaf.size for leaf in jax.tree.leaves(tree)) for name, tree in
           (held | {'all': built.abstract.params, 'critic': built.abstract.params['critics']['reward']}).items()}
  policy = sizes['all'] - sizes['critic']
  assert sizes == {'the reference': policy, 'the reward liked': policy + TASK.width, 'critic': policy + TASK.width,
                   'all': 2 * policy + TASK.width}
  assert run.rows.answers == IT.answers and run.batch == IT.batch


def test_half_of_a_row_is_learnt_and_both_sides_share_their_prompt(tmp_path):
  write_batches(tmp_path, TASK, count=2)
  write_pairs(tmp_path, TASK)
  (row, _), (pair, _) = batches(tmp_path, TASK, 'sft'), batches(tmp_path, TASK, 'dpo')
  assert shift(row).weights_BL.sum() == TASK.batch * (TASK.length + 1 - TASK.prompt)
  chosen, rejected = pair['tokens'].swapaxes(0, 1)
  assert (chosen[:, :TASK.prompt] == rejected[:, :TASK.prompt]).all() and (chosen != rejected).any()
  assert pair['tokens'].shape == (TASK.pairs, 2, TASK.length) and pair['reference'].std() > 1


def test_phases_are_shown():
  table = phases({'phases': {'ours': {'sampling': {'seconds': 0.5, 'share': 0.25, 'tokens_per_s': 4096.0}}}})
  assert [list(column.cells) for column in table.columns] == [['ours'], ['sampling'], ['0.5 s'], ['25%'], ['4,096']]


def sample(tokens: float, **more: float) -> dict[str, float]:
  return {'wall': 2.0, 'cpu': 3.0, 'loss': 1.0, 'answer_tokens': tokens, 'sampling': 0.5, 'reference': 0.0} | more


def beside(losses: list[float], tokens: float = IT.tokens, wall: float = 5.0) -> Race:
  """A race of two, as it comes out."""
  return Race({'ours': {'losses': [1.0, 0.5]}, 'TRL': {'losses': losses, 'trl': '1.16'}},
              {'ours': 2 * [[sample(IT.tokens)]], 'TRL': 2 * [[sample(tokens, wall=wall)]]})


ALONE = Race({'ours': {'losses': [1.0]}}, {'ours': [[sample(IT.tokens)]]})


@pytest.mark.parametrize('found, verdict', [
  (beside([1.0, 0.5]), 'met'), (beside([1.0, 0.5], wall=3.9), 'missed'), (beside([1.0, 0.51]), 'unequal'),
  (beside([1.0, 0.5], tokens=IT.tokens - 1), 'unequal'), (ALONE, 'no peers')])
def test_iterations_are_judged_where_losses_and_sizes_are_alike(found, verdict, tmp_path):
  line = rlhf.judged(found, 'tiny', Setting(tmp_path, {}))
  assert line.verdict == verdict and line.more['phases']['ours'] == {
    'sampling': {'seconds': 0.5, 'share': 0.25, 'tokens_per_s': 2.0 * IT.tokens}}


@pytest.mark.parametrize('losses, verdict', [([1.0, 0.5], 'met'), ([1.0, 0.51], 'unequal')])
def test_steps_are_judged_where_losses_are_alike(losses, verdict, tmp_path):
  line = tune.judged(beside(losses), 'dpo', 'tiny', Setting(tmp_path, {}))
  assert line.verdict == verdict and line.more['tokens_per_s']['TRL'] == TASK.tokens / 5


def test_without_its_environment_a_peer_is_left_out(tmp_path):
  def names(peers, kind):
    setting = Setting(tmp_path, peers)
    if kind == 'rlhf':
      return [racer.name for racer in rlhf.contestants(setting, tmp_path, 'tiny')]
    return [racer.name for racer in tune.contestants(setting, tmp_path, kind, 'tiny')]

  assert names({'trl': 'python'}, 'sft') == ['ours', 'TRL', 'HF eager', 'HF compiled']
  assert names({'trl': 'python'}, 'dpo') == names({'trl': 'python'}, 'rlhf') == ['ours', 'TRL']
  assert names({}, 'sft') == names({}, 'dpo') == names({}, 'rlhf') == ['ours']


THEIRS = '''
import json, sys
from pathlib import Path
from experiments.bench.peers.hf_sft import Answers
from experiments.bench.peers.trl_grpo import Grpo
from experiments.bench.peers.trl_tune import Tune
from experiments.bench.task import ITERATIONS, TASKS

folder, task = Path(sys.argv[1]), TASKS['tiny']
grpo = Grpo(folder, task, ITERATIONS['tiny'])
found = {'rlhf': grpo.prepare(), 'plain': Answers(folder, task, 'float32', 'eager').prepare(), 'iteration': grpo.step(),
         **{kind: Tune(folder, task, kind).prepare() for kind in ('sft', 'dpo')}}
(folder / 'theirs.json').write_text(json.dumps(found))
'''


def test_the_peers_say_the_same_losses(grpo):
  """TRL's three trainers and the plain loss, all from the parameters that a policy left; each has learnt in between."""
  (program, _, losses), python = grpo, python_of('trl')
  folder = program.folder
  write_batches(folder, TASK)
  write_pairs(folder, TASK)
  done = subprocess.run([python, '-W', 'ignore', '-c', THEIRS, folder], cwd=ROOT, capture_output=True, text=True, check=False,
                        timeout=300, env=os.environ | {'PYTHONPATH': '.', 'HF_HUB_OFFLINE': '1', 'CUDA_VISIBLE_DEVICES': ''})
  assert done.returncode == 0, done.stderr[-4000:]
  theirs = json.loads((folder / 'theirs.json').read_text())
  ours = {'rlhf': losses, **{kind: Tune(folder, TASK, kind).prepare()['losses'] for kind in ('sft', 'dpo')}}
  for kind, curve in ours.items():
    assert apart(curve, theirs[kind]['losses']) < 1e-4 and np.ptp(curve) > 0.01, kind
  assert apart(ours['sft'], theirs['plain']['losses']) < 1e-4 and abs(ours['dpo'][0] - np.log(2)) > 0.05
  assert theirs['iteration']['answer_tokens'] == IT.tokens
