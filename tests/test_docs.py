"""The README and the pages of docs/ tell of the house as it is: its files, its commands, its links."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob('*.md'), *ROOT.glob('docs/*.md')])
FOLDER, FILE = re.compile(r'(\S+/)'), re.compile(r'  (\S+\.py) {2,}\S.*')

of_every_page = pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)


def told() -> list[str]:
  """The files in the tree of docs/files.md, by their paths."""
  lines = (ROOT / 'docs/files.md').read_text().partition('```\n')[2].partition('```')[0].splitlines()
  folder, files = '', []
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


@of_every_page
def test_every_command_names_what_is_there(page):
  text, makefile = page.read_text(), (ROOT / 'Makefile').read_text()
  for target in re.findall(r'(?:`|^ {4})make ([a-z-]+)', text, re.MULTILINE):
    assert re.search(rf'^{target}:', makefile, re.MULTILINE), f'make {target}'
  for module in re.findall(r'python3? -m ((?:experiments|tests)[\w.]*)', text):
    path = ROOT / module.replace('.', '/')
    assert path.with_suffix('.py').exists() or (path / '__main__.py').exists(), module
  for path in re.findall(r'(?:--config=|`)((?:experiments|kernels|model|train|align|tests|docs)/[\w/.-]+\.\w+)', text):
    assert (ROOT / path).exists(), path


@of_every_page
def test_every_link_leads_somewhere(page):
  for target in re.findall(r'\]\(([^)\s]+)\)', page.read_text()):
    path, _, anchor = target.partition('#')
    assert not path.startswith('/')
    if not re.match(r'\w+:', target):
      there = page.parent / path if path else page
      assert there.exists(), target
      assert not anchor or anchor in anchors(there), target


def anchors(page: Path) -> set[str]:
  """The headings of a page, as links name them."""
  return {re.sub(r'[^\w -]', '', title).strip().lower().replace(' ', '-')
          for title in re.findall(r'^#+ (.*)$', page.read_text(), re.MULTILINE)}
