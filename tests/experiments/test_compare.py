"""The command that compares two folders."""

import pytest

from experiments import compare
from model.errors import ConfigError
from tests.eval.test_evaluation import FOUND, record
from train.artifact import write_json


def folders(tmp_path, **files):
  for name, (file, data) in files.items():
    (tmp_path / name).mkdir()
    write_json(tmp_path / name / file, data)


def test_evaluations_and_reports(tmp_path):
  report = {'name': 'r', 'digest': 'd', 'headline': {'loss': 1.0}}
  folders(tmp_path, a=('evaluation.json', record('a', FOUND)), b=('evaluation.json', record('b', FOUND)),
          r=('report.json', report | {'evaluated': 'a'}), bare=('report.json', report),
          s=('report.json', report | {'evaluated': 'b', 'headline': {'loss': 0.5}}))
  of = lambda one, other: compare.of_folders(str(tmp_path / one), str(tmp_path / other))  # noqa: E731
  assert len(of('a', 'b')['tasks']) == 2 and of('a', 'b')['headline'] == []
  both = of('r', 's')
  assert len(both['tasks']) == 2 and both['headline'][0]['difference'] == -0.5
  assert of('r', 'bare')['tasks'] == [] and len(of('r', 'bare')['headline']) == 1
  assert len(of('a', 'r')['tasks']) == 2
  with pytest.raises(ConfigError, match='a report that has none'):
    of('a', 'bare')
  with pytest.raises(ConfigError, match='no evaluation'):
    of('a', '.')
  with pytest.raises(ConfigError, match='--other='):
    compare.of_folders(str(tmp_path / 'a'), '')
