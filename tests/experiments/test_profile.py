"""The profile of a tiny real run on the CPU, and the arithmetic of nested times."""

import gzip
import json
import subprocess
import sys

import pytest
from absl.testing import flagsaver

from experiments import command, profile
from experiments.profile import Event, alone, covered, operations, read
from experiments.profile_program import Operation, Program, guessed, of_names, programs
from model.errors import DataError


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """A folder of runs, of which steps 2 to 4 were profiled, or some until it ended early, or none; and what was said."""
  folder = tmp_path_factory.mktemp('runs')
  command = [sys.executable, '-m', 'tests.experiments.profiled', str(folder)]
  return folder, subprocess.run(command, capture_output=True, text=True, check=True).stderr


def test_a_profile_has_the_steps_their_products_and_where_they_come_from(runs):
  found = read(profile.newest(runs[0] / 'whole'))
  assert found.devices == 1 and found.steps == 3
  assert 0 < found.busy <= found.span
  products = [row for row in found.rows if row.what.kind == 'matmul']
  assert sum(row.times for row in products) == 3 * 3 and any('layers' in row.what.source for row in products)
  assert found.of('collective') == found.of('kernel') == 0 < found.of('matmul')
  total = sum(found.of(kind) for kind in profile.KINDS)
  assert total == pytest.approx(sum(row.seconds for row in found.rows)) and total <= found.busy * 1.01


def test_the_run_says_what_opens_it_and_the_command_prints_it(runs, capsys):
  folder, said = runs
  assert f'profile of steps 2 to 4: python -m experiments.profile --run={folder / "whole"}' in said
  assert '.trace.json.gz at https://ui.perfetto.dev' in said
  with flagsaver.flagsaver():
    assert profile.main(command.parse(('profile', f'--run={folder / "whole"}', '--top=3'))) == 0
  said = capsys.readouterr().out
  assert 'matrix products' in said and 'idle' in said and '3 steps on 1 device' in said


def test_a_run_that_ends_early_keeps_its_trace(runs):
  folder, said = runs
  assert f'--run={folder / "none"}' not in said and f'--run={folder / "early"}' in said
  assert read(profile.newest(folder / 'early')).rows


def test_a_folder_without_a_trace_and_a_trace_without_operations_are_named(tmp_path):
  with pytest.raises(DataError, match=r'watch\.profile'):
    profile.newest(tmp_path)
  path = tmp_path / 'a.trace.json.gz'
  path.write_bytes(gzip.compress(json.dumps({'traceEvents': [{'ph': 'X', 'name': 'x', 'ts': 0, 'dur': 1}]}).encode()))
  with pytest.raises(DataError, match='no operation'):
    read(profile.newest(tmp_path))


def test_what_lies_inside_is_counted_once():
  """A loop of 10 around products of 3 and 4 has 3 of its own; two threads at once are busy once."""
  loop, one, two, other = (Event('p', name, '0', thread, begin, end, '1') for name, thread, begin, end in
                           [('while', 'a', 0, 10), ('dot', 'a', 1, 4), ('dot', 'a', 5, 9), ('copy', 'b', 8, 20)])
  assert [own for _, own in alone([loop, one, two])] == [3, 3, 4]
  assert covered([loop, one, two, other]) == (20e-6, 20e-6) and covered([one, two]) == (8e-6, 7e-6)


def test_a_gpu_is_read_by_its_streams_and_a_tpu_by_its_lane_of_operations():
  """Of what is told twice one is taken; kernels of a graph have names of their own; steps are calls of the longest program."""
  def lane(pid, tid, name):
    return {'ph': 'M', 'name': 'thread_name', 'pid': pid, 'tid': tid, 'args': {'name': name}}

  def ran(pid, tid, name, ts, dur, **args):
    return {'ph': 'X', 'name': name, 'pid': pid, 'tid': tid, 'ts': ts, 'dur': dur, 'args': args}

  derived = [lane(1, 8, 'XLA Ops'), lane(1, 9, 'XLA Modules'), *(ran(1, 8, 'dot.1', t, 4, hlo_op='dot.1') for t in (0, 10)),
             *(ran(1, 9, 'jit_step', t, 9) for t in (0, 10)), ran(1, 9, 'jit_other', 30, 1)]
  streams = [lane(1, 3, 'Stream #13(Compute)'), ran(1, 3, 'nvjet_tst', 0, 4, hlo_op='dot.1', hlo_module='jit_step'),
             ran(1, 3, 'ncclDevKernel', 5, 2), ran(2, 5, 'python', 0, 99)]
  assert [(each.name, each.begin) for each in operations([*streams, *derived])] == [('dot.1', 0), ('ncclDevKernel', 5)]
  assert [(each.name, each.begin) for each in operations(derived)] == [('dot.1', 0), ('dot.1', 10)]
  assert profile.calls(derived, list(operations(derived))) == 2 and profile.calls(streams, list(operations(streams))) == 1


def test_names_are_the_last_resort():
  assert [guessed(name).kind for name in ('all-reduce.3', 'ncclKernel', 'dot.7', 'gemm_fusion_dot_5', 'convert_fusion')] == [
    'collective', 'collective', 'matmul', 'matmul', 'elementwise']
  raw = [{'ph': 'X', 'name': 'kernel', 'pid': 3, 'tid': 4, 'ts': 1.0, 'dur': 2.0, 'args': {'hlo_op': 'dot.1'}},
         {'ph': 'X', 'name': 'python', 'pid': 3, 'tid': 5, 'ts': 1.0, 'dur': 9.0}, {'ph': 'M', 'pid': 3, 'name': 'threads'}]
  assert list(operations(raw)) == [Event('', 'dot.1', '3', 4, 1.0, 3.0, '')]


def test_programs_are_read_from_the_profilers_own_file(runs):
  """Of those of one name the one counts whose operations ran."""
  [path] = profile.newest(runs[0] / 'whole').parent.glob('*.xplane.pb')
  ran = {row.name for row in read(profile.newest(runs[0] / 'whole')).rows}
  known = [*programs(path), Program('jit_step', {'dot.1': Operation('collective')})]
  mine = of_names(known, 'jit_step', ran)
  assert ran <= mine.keys() and {what.kind for what in mine.values()} == {'matmul', 'elementwise'}
  assert of_names(known, 'jit_other', ran) == {}
