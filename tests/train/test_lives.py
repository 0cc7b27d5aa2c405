"""Lives of a folder: what several processes do to it at once."""

from pathlib import Path

from train.lives import writable


def test_processes_of_one_number_may_look_whether_a_folder_can_be_written(tmp_path, monkeypatch):
  """As in containers, each of which calls its first process 1."""
  touch = Path.touch

  def touched_by_both(path, *given):
    touch(path, *given)
    path.unlink()                         # the other one was quicker

  monkeypatch.setattr(Path, 'touch', touched_by_both)
  writable(tmp_path / 'new')
  assert list((tmp_path / 'new').iterdir()) == []
