"""Loads a checked config from a file that the user names: a `.py` with `get_config()`, or a `run.json`.

Python code is run only from the path that was given, never from a name inside a config.
"""

import dataclasses
import difflib
import importlib
import re
import sys
import traceback
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from experiments.overrides import unknown
from model.errors import ConfigError, UserError
from train.artifact import Artifact, Store, decode, digest, encode, read_json
from train.lives import last_life
from train.typecheck import check, hints

ROOT = Path(__file__).resolve().parent.parent
KEYWORD = re.compile(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'")
FIRST = 'experiments/quickstart/pretrain.py'      # suggested when the given path resembles none of our files
EXAMPLES = {'get_config': FIRST, 'sweep': 'experiments/sweeps/scaling.py'}     # a file that has the function


def load(path: str) -> Artifact:
  """The artifact that a file describes, with the types of all its fields checked, nested ones too.

  Raises: ConfigError that names the file and, where it can, the line.
  """
  config = load_json(Path(path)) if path.endswith('.json') else call(load_module(path), 'get_config')
  return whole(config, path)


def whole(config: Any, path: str) -> Artifact:
  """The config itself. Raises: ConfigError if it is no artifact, or has another digest after a round trip through JSON."""
  if not isinstance(config, Artifact):
    raise ConfigError('config.not-an-artifact', path, f'it gives {type(config).__name__}, which cannot be made',
                      'give the run.json of something that was made' if path.endswith('.json') else
                      'return a Run, a Report or another Artifact from get_config()')
  check(config)
  if digest(decode(encode(config))) != digest(config):
    raise ConfigError('config.not-stable', path, 'written down and read again, it is another config',
                      'give fields the types of their annotations')
  return config


def load_module(path: str) -> ModuleType:
  """The module of an experiment file. A file of this project keeps its module name, so that its classes can be decoded.

  Raises: ConfigError where there is no such file, or it fails.
  """
  file = Path(path).resolve()
  if not file.is_file():
    why = 'no file was named' if not path else 'it is a folder' if file.is_dir() else 'there is no such file'
    raise ConfigError('config.no-file', path or '--config', why, _nearest(path))
  if file.suffix != '.py':
    raise ConfigError('config.no-file', path, 'it is neither a .py nor a run.json', _nearest(path))
  inside = file.relative_to(ROOT).with_suffix('').parts if file.is_relative_to(ROOT) else ()
  if inside[:1] == ('experiments',) and all(part.isidentifier() for part in inside):
    return located(file, lambda: importlib.import_module('.'.join(inside)))
  loader = SourceFileLoader('experiment_file', str(file))
  module = ModuleType(loader.name)
  module.__file__ = str(file)
  sys.modules[loader.name] = module
  located(file, lambda: loader.exec_module(module))
  return module


def call(module: ModuleType, name: str) -> Any:
  """What the module's function of that name returns.

  Raises: ConfigError where the file has none, or where it fails.
  """
  file = Path(str(module.__file__))
  function = vars(module).get(name)
  if not callable(function):
    raise ConfigError('config.no-function', str(file), f'it has no {name}()',
                      f'define {name}() in it, as {EXAMPLES[name]} does')
  return located(file, function)


def located(file: Path, function: Callable[[], Any]) -> Any:
  """`function()`. Raises: ConfigError, or the UserError that it raised, with the line of the file added."""
  try:
    return function()
  except SyntaxError as error:
    text = (error.text or '').strip()
    raise ConfigError('config.file-failed', f'{error.filename}:{error.lineno}', f'{error.msg}: {text}',
                      'mend this line') from error
  except Exception as error:
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename) == file]
    where = f'{file}:{lines[-1]}' if lines else str(file)
    told = error if isinstance(error, UserError) else _mistyped(error) or _unknown(error)
    if told is not None:
      raise type(told)(told.id, f'{where}: {told.what}', told.why, told.do) from error
    raised = f'{frames[-1].filename}:{frames[-1].lineno}'
    raise ConfigError('config.file-failed', where, f'{type(error).__name__}: {error}',
                      'mend this line' + (f'; it was raised at {raised}' if raised != where else '')) from error


def _mistyped(error: Exception) -> UserError | None:
  """The error for a field of a wrong type, if that is why a dataclass's __post_init__ failed; else None."""
  for frame, _ in traceback.walk_tb(error.__traceback__):
    if frame.f_code.co_name == '__post_init__':
      try:
        check(frame.f_locals['self'], type(frame.f_locals['self']).__name__)
      except UserError as found:
        return found
  return None


def _unknown(error: Exception) -> UserError | None:
  """The error for a field that a dataclass does not have, with similar names, if that is why a call failed; else None."""
  said = KEYWORD.match(str(error))
  if said is None:
    return None
  for frame, _ in traceback.walk_tb(error.__traceback__):
    for cls in (frame.f_globals.get(said[1]), type(frame.f_locals.get('obj'))):       # obj: dataclasses.replace's own
      if dataclasses.is_dataclass(cls) and isinstance(cls, type) and cls.__name__ == said[1]:
        return unknown(f'{said[1]}({said[2]}=...)', said[2], list(hints(cls)), f'{said[1]} has no such field')
  return None


def load_json(path: Path) -> Any:
  """The artifact that a `run.json` describes.

  Raises: ConfigError where that is not what its folder was made from: the file was edited, or the code changed.
  """
  config = decode(read_json(path))
  life = last_life(path.parent) if path.name == 'run.json' else None
  if life is not None and life['digest'] != digest(config):
    commit = life['environment']['code']['commit']
    raise ConfigError('config.changed-meaning', str(path), 'it does not describe what its folder was made from: it was '
                      f'edited, or the code changed since commit {commit}',
                      'copy it elsewhere to launch it as something new, or use the code of that commit')
  return config


def load_run(path: str) -> tuple[Any, Path]:
  """(run, folder): the `train.run.Run` in a folder. Raises: ConfigError where there is none."""
  from train.run import Run  # all of training, which not every command needs
  return _held(path, Run, 'training')


def load_model(path: str) -> tuple[Any, Path]:
  """(model, folder): the `train.run.Parent`, trained or published, in a folder. Raises: ConfigError where there is none."""
  from train.run import Parent
  return _held(path, Parent, 'model')


def context(run: Any, store: Store) -> int | None:
  """The context length that a `train.run.Parent` or one of its ancestors was trained on, tokens; None where not known."""
  from train.published import Published
  if isinstance(run, Published):
    return run.reads(store)
  before = None if run.restore is None else context(run.restore, store)
  return max(run.rows.length, before or 0)


def beyond(run: Any, store: Store, tokens: int, what: str) -> str:
  """A warning line where `tokens` exceed the context length that the model was trained on, else ''; `what` begins it."""
  learnt = context(run, store)
  if learnt is None or tokens <= learnt:
    return ''
  return (f'warning: {what} {tokens:,} tokens at once, and {run.name} has learnt to read {learnt:,}: what is beyond may make '
          'no sense\n')


def _held(path: str, kind: Any, what: str) -> tuple[Any, Path]:
  folder = Path(path).resolve()
  if not path or not (folder / 'run.json').is_file():
    why = ('no folder was named' if not path else 'there is no run.json in it' if folder.is_dir() else
           'it is a file, and a run is a folder' if folder.is_file() else 'there is no such folder')
    raise ConfigError('config.no-run', f'--run={path}', why, f'give the folder of a run, such as {_folders(path)}; '
                      'experiments.launch says it, and experiments.listing lists all')
  held = load_json(folder / 'run.json')
  if not isinstance(held, kind):
    raise ConfigError('config.no-run', f'--run={path}', f'it holds a {type(held).__name__}, which is no {what}',
                      'give the folder of a run, not of what was made of one or for one; experiments.listing lists them')
  return held, folder


def _folders(path: str) -> str:
  """A suggestion: existing run folders with similar names, or an example of such a name."""
  if Path(path).name == 'run.json':
    return str(Path(path).parent)
  roots = dict.fromkeys((Path(path).parent, Path('runs')))
  beside = [file.parent for root in roots for file in sorted(root.glob('*/run.json'))]
  names = {folder.name.rpartition('-')[0]: folder for folder in beside} | {folder.name: folder for folder in beside}
  near = difflib.get_close_matches(Path(path).name, names, n=2, cutoff=0.6) if path else []
  return ' or '.join(dict.fromkeys(str(names[name]) for name in near)) or 'runs/NAME-1f3a9c42d0'


def _nearest(path: str) -> str:
  """A suggestion: the run.json of the folder, or experiment files with similar names."""
  if path and (Path(path) / 'run.json').is_file():
    return f'give --config={Path(path) / "run.json"}'
  files = [file for file in sorted(ROOT.glob('experiments/*/*.py')) if 'def get_config(' in file.read_text(encoding='utf-8')]
  known = [str(file.relative_to(ROOT)) for file in files]
  near = difflib.get_close_matches(path, known, n=3, cutoff=0.4) or [FIRST]
  return f'give --config=FILE, such as {", ".join(near)}'
