"""The law of the house, read from the syntax trees: who may import whom, and what may stand nowhere in the tree."""

import ast
import functools
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PEERS = ROOT / 'experiments' / 'bench' / 'peers'      # other frameworks' programs, which the benchmarks run against ours
ROOMS = ('kernels', 'model', 'train', 'align', 'serve', 'experiments')      # each imports itself and what is left of it
FORBIDDEN_CALLS = {'eval', 'exec', 'compile', '__import__'}
FORBIDDEN_MODULES = {'pickle', 'cPickle', 'cloudpickle', 'dill', 'marshal', 'shelve', 'torch', 'joblib'}


def files(*rooms: str) -> list[Path]:
  return [path for room in rooms for path in sorted((ROOT / room).rglob('*.py'))]


def module(path: Path) -> str:
  return '.'.join(path.relative_to(ROOT).with_suffix('').parts)


def imports(tree: ast.AST, top_level: bool = False) -> Iterator[str]:
  """Modules that are imported; `from a import b` gives `a.b`. With `top_level`, those that importing the file imports:
  not those inside functions, nor those that a type checker alone sees."""
  for node in ast.iter_child_nodes(tree):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, f'line {node.lineno}: relative import'
      yield from (f'{node.module}.{alias.name}' for alias in node.names)
    elif not (top_level and (isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or checked_only(node))):
      yield from imports(node, top_level)


def checked_only(node: ast.AST) -> bool:
  """Whether it is `if TYPE_CHECKING:`."""
  return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == 'TYPE_CHECKING'


@functools.cache
def parse(path: Path) -> ast.Module:
  return ast.parse(path.read_text(encoding='utf-8'), str(path))


def misplaced(room: str, names: Iterator[str]) -> list[str]:
  """The imports that lead from a room into one to its right."""
  right = (*ROOMS[ROOMS.index(room) + 1:], 'tests')
  return [name for name in names if name.split('.')[0] in right]


def dangers(tree: ast.AST) -> list[str]:
  """Calls and imports that run what a file or a string says."""
  found = [name for name in imports(tree) if name.split('.')[0] in FORBIDDEN_MODULES]
  for node in ast.walk(tree):
    if isinstance(node, ast.Call):
      name = node.func.id if isinstance(node.func, ast.Name) else ''
      found += [f'{name}() in line {node.lineno}'] if name in FORBIDDEN_CALLS else []
      found += [f'{word.arg} in line {node.lineno}' for word in node.keywords
                if word.arg in ('allow_pickle', 'trust_remote_code', 'shell')
                and not (isinstance(word.value, ast.Constant) and word.value.value is False)]
  return found


@pytest.mark.parametrize('room', ROOMS)
def test_a_room_imports_itself_and_rooms_to_its_left(room):
  assert {str(path): bad for path in files(room) if (bad := misplaced(room, imports(parse(path))))} == {}


def test_flax_stays_inside_model_but_for_its_struct():
  rooms = [room for room in ROOMS if room != 'model']
  assert {str(path): bad for path in files(*rooms)
          if (bad := [name for name in imports(parse(path)) if name.split('.')[0] == 'flax'
                      and not name.startswith('flax.struct')])} == {}


def test_no_module_imports_itself_through_others():
  known = {module(path): path for path in files(*ROOMS)}
  graph = {name: {target for each in imports(parse(path), top_level=True)
                  for target in (each, each.rpartition('.')[0]) if target in known} for name, path in known.items()}
  list(graphlib.TopologicalSorter(graph).static_order())      # raises CycleError, which names the cycle


def test_nothing_in_the_tree_runs_what_a_file_or_a_string_says():
  ours = [path for path in files(*ROOMS) if PEERS not in path.parents]
  assert {str(path): found for path in ours if (found := dangers(parse(path)))} == {}


def test_files_are_of_a_healthy_size():
  long = {str(path): count for path in files(*ROOMS) if (count := len(path.read_text().splitlines())) > 300}
  assert long == {}


BROKEN = [
    ('model', 'from train.step import gradient', 'misplaced'), ('kernels', 'import model.decoder', 'misplaced'),
    ('train', 'def f():\n  from experiments import launch', 'misplaced'), ('serve', 'import tests.x', 'misplaced'),
    ('train', 'import pickle', 'dangers'), ('train', 'from torch import load', 'dangers'),
    ('train', 'np.load(p, allow_pickle=True)', 'dangers'), ('train', 'np.load(p, allow_pickle=flag)', 'dangers'),
    ('train', 'eval("1")', 'dangers'), ('train', 'x = [exec(s) for s in y]', 'dangers'),
    ('serve', 'subprocess.run(c, shell=True)', 'dangers'),
]


@pytest.mark.parametrize('room, code, law', BROKEN, ids=[code for _, code, _ in BROKEN])
def test_the_law_sees_what_breaks_it(room, code, law):
  tree = ast.parse(code)
  assert misplaced(room, imports(tree)) if law == 'misplaced' else dangers(tree)


KEPT = ['from model.decoder import Model', 'np.load(p, allow_pickle=False)', 're.compile("x")', 'import jax',
        'from train import step', 'jitted.compile()']


@pytest.mark.parametrize('code', KEPT)
def test_the_law_lets_pass_what_keeps_it(code):
  tree = ast.parse(code)
  assert not misplaced('train', imports(tree)) and not dangers(tree)
