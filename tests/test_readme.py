"""The README tells of the house as it is: every file stands in its tree, and nothing else does."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER, FILE = re.compile(r'(\S+/)'), re.compile(r'  (\S+\.py) {2,}\S.*')


def told() -> list[str]:
  """The files in the README's tree, by their paths."""
  lines = (ROOT / 'README.md').read_text().partition('```\nkernels/\n')[2].partition('```')[0].splitlines()
  folder, files = 'kernels/', []
  for line in lines:
    if found := FOLDER.fullmatch(line):
      folder = found[1]
    elif found := FILE.fullmatch(line):
      files.append(folder + found[1])
    else:
      raise AssertionError(f'this is neither a folder nor a file and what it is about: {line!r}')
  return files


def test_every_file_stands_in_the_tree():
  listed = subprocess.run(['git', 'ls-files', '*.py'], cwd=ROOT, capture_output=True, text=True, check=True).stdout
  assert sorted(told()) == sorted(path for path in listed.split() if not path.startswith('tests/'))


def test_every_command_names_what_is_there():
  text = (ROOT / 'README.md').read_text()
  makefile = (ROOT / 'Makefile').read_text()
  for target in re.findall(r'(?:`|^ {4})make ([a-z-]+)', text, re.MULTILINE):
    assert re.search(rf'^{target}:', makefile, re.MULTILINE), f'make {target}'
  for module in re.findall(r'python -m ([\w.]+)', text):
    path = ROOT / module.replace('.', '/')
    assert path.with_suffix('.py').exists() or (path / '__main__.py').exists(), module
  for path in re.findall(r'--config=(experiments/\S+?\.py)', text):
    assert (ROOT / path).exists(), path
