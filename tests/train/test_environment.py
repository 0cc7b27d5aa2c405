"""What is written down of the code: the commit, and what is not in it."""

import subprocess

import pytest

from train import environment


@pytest.fixture
def project(tmp_path, monkeypatch):
  """A clone with one file, in the place of this project."""
  (tmp_path / 'align').mkdir()
  (tmp_path / 'align' / 'rewards.py').write_text('x = 1\n')
  (tmp_path / '.gitignore').write_text('*_local.py\n')
  for words in (['init', '-q'], ['add', '.'], ['-c', 'user.name=a', '-c', 'user.email=a@b', 'commit', '-qm', 'first']):
    subprocess.run(['git', *words], cwd=tmp_path, check=True)
  monkeypatch.setattr(environment, 'ROOT', tmp_path)
  return tmp_path


def changes():
  code = environment.code.__wrapped__()
  assert len(code['commit']) == 40
  return code['changes']


def test_new_files_of_the_rooms_are_changes_as_edits_are_and_others_are_not(project):
  assert changes() is None
  (project / 'notes.py').write_text('y = 1\n')
  (project / 'align' / 'mine_local.py').write_text('y = 1\n')
  (project / 'align' / 'table.txt').write_text('y = 1\n')
  assert changes() is None
  (project / 'align' / 'mine').mkdir()
  own = project / 'align' / 'mine' / 'brief.py'
  seen = {None}
  for text in ('y = 1\n', 'y = 2\n'):
    own.write_text(text)
    seen.add(changes())
  (project / 'align' / 'rewards.py').write_text('x = 2\n')
  seen.add(changes())
  assert len(seen) == 4
  own.unlink()
  assert changes() not in seen
