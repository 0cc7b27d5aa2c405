"""The plan: a changed source text is reported, once, and nothing is made again."""

import pytest
from absl.testing import flagsaver

from experiments import command, launch

CONFIG = """
from train.data.corpus import Corpus
from train.data.readers import TextFiles
from train.data.vocabulary import Vocabulary

def get_config():
  corpus = Corpus(name='speeches', sources=(TextFiles('{folder}/*.txt'),), stages=(), heldout_modulo=2)
  return Vocabulary(name='pieces', corpus=corpus, size=300)
"""


@pytest.fixture
def say(tmp_path, capsys):
  """What a launch of a vocabulary of twelve short texts says."""
  (tmp_path / 'in').mkdir()
  for number in range(12):
    (tmp_path / 'in' / f'{number:02d}.txt').write_text(f'{number}. A speech about the state of the union.\n' * 20)
  (tmp_path / 'config.py').write_text(CONFIG.format(folder=tmp_path / 'in'))

  def launched(*argv: str) -> str:
    with flagsaver.flagsaver():
      argv = ('launch', f'--config={tmp_path}/config.py', f'--runs={tmp_path}/runs', *argv)
      assert launch.main(command.parse(argv)) == 0
    said = capsys.readouterr()
    return ' '.join(f'{said.out} {said.err}'.split())

  return launched


@pytest.mark.parametrize('dry', [(), ('--dry_run',)])
def test_a_corpus_whose_text_changed_is_told_and_used_as_it_is(say, dry, tmp_path):
  say()
  made = {path: path.stat().st_mtime_ns for path in (tmp_path / 'runs').rglob('*.json*')}
  assert 'outdated' not in say(*dry)
  (tmp_path / 'in' / '03.txt').write_text('Another speech.\n' * 20)
  (tmp_path / 'in' / '05.txt').unlink()
  said = say(*dry)
  assert said.count('outdated: speeches') == 1 and '2 of its 12 files changed since' in said
  assert 'in/03.txt,' in said and 'in/05.txt (gone)' in said
  [corpus], [pieces] = (tmp_path / 'runs').glob('speeches-*'), (tmp_path / 'runs').glob('pieces-*')
  assert f'delete what was made from the old ({corpus}, {pieces})' in said
  assert {path: path.stat().st_mtime_ns for path in made} == made


def test_after_deleting_what_was_named_it_is_made_from_the_text_of_now(say, tmp_path):
  import shutil
  say()
  (tmp_path / 'in' / '03.txt').write_text('Another speech.\n' * 20)
  shutil.rmtree(tmp_path / 'runs')
  assert 'outdated' not in say() and 'outdated' not in say()


def test_many_changed_files_are_counted_and_some_are_named(say, tmp_path):
  say()
  for path in (tmp_path / 'in').iterdir():
    path.write_text(path.read_text() + 'And more.\n')
  assert '12 of its 12 files changed since' in (said := say()) and 'and 9 more' in said


def test_a_folder_that_is_not_there_changes_no_text(say, tmp_path):
  say()
  (tmp_path / 'in').rename(tmp_path / 'unmounted')
  assert 'outdated' not in say()
