"""Shared by the commands in experiments/: parsing of flags, messages for errors that a user can mend, exit codes.

    0 done   75 stopped by a signal after a save: launch again   78 bad configuration   65 bad data or checkpoint   74 storage
    70 numerics   69 another process of the job   130 interrupted with nothing to save   1 a bug, with its traceback
"""

import difflib
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from absl import app, flags

from align import threads
from experiments import interrupt
from model.errors import ConfigError, UserError

Overrides = Mapping[str, str]
Main = Callable[[Overrides], int]

CONFIG = flags.DEFINE_string('config', '', 'The experiment: a .py with get_config(), or a run.json. '
                             '--config.FIELD=VALUE changes a field.')
RUNS = flags.DEFINE_string('runs', 'runs', 'The folder where everything is kept.')
RUN = flags.DEFINE_string('run', '', 'The folder of a run, such as runs/NAME-1f3a9c42d0.')

BUG = 1
GOES_ON = 'interrupted: launch the same command again, and it goes on from what was saved'
OVERRIDE = re.compile(r'--?config\.([^=]*)(=?)(.*)', re.DOTALL)


def run(main: Main, interrupted: str = 'interrupted') -> None:
  """Runs `main(overrides)` as an absl program and exits with the code that it returns; Ctrl-C prints `interrupted`."""
  try:
    app.run(lambda overrides: guarded(interrupt.heard(main), overrides, interrupted), flags_parser=_parse_or_leave)
  except SystemExit as leaving:
    leave(int(leaving.code or 0))
    raise


def leave(code: int) -> None:
  """Exits at once if a background thread is still busy, on which a normal exit would hang or crash; else returns."""
  if threads.busy():
    _end(code)


def parse(argv: Sequence[str]) -> Overrides:
  """The overrides in argv, `--config.a.b=v` as `{'a.b': 'v'}`; sets the program's flags from all else.

  Raises: ConfigError for a flag that does not exist or a value that it cannot have.
  """
  overrides, others = _split(argv)
  try:
    stray = flags.FLAGS(others)[1:]
  except flags.UnrecognizedFlagError as error:
    raise _unknown_flag(error.flagname) from error
  except flags.Error as error:
    raise ConfigError('config.bad-flag', str(error), 'the flag cannot have this value', 'see --help') from error
  if stray:
    raise ConfigError('config.stray-word', stray[0], 'settings are given by flags',
                      f'did you mean --config={stray[0]}? See --help')
  _refuse_unused()
  return overrides


def _split(argv: Sequence[str]) -> tuple[dict[str, str], list[str]]:
  """The overrides, by path, and all other words. Raises: ConfigError for an override without a value."""
  overrides: dict[str, str] = {}
  others = []
  for word in argv:
    match = OVERRIDE.fullmatch(word)
    if match and not match[2]:
      raise ConfigError('config.no-value', word, 'an override needs a value', f'write {word}=VALUE')
    if match:
      overrides[match[1]] = match[3]
    else:
      others.append(word)
  return overrides, others


def _refuse_unused() -> None:
  """Raises: ConfigError for a shared flag that this command does not read, such as --run where it takes --runs."""
  known = _own_flags()
  for flag in (CONFIG, RUNS, RUN):
    if known and flag.present and flag.name not in known:
      raise _unknown_flag(flag.name)


def _own_flags() -> list[str]:
  """The names of the flags that the running program declares as its own; [] when this is not run as a program."""
  return [flag.name for flag in flags.FLAGS.get_key_flags_for_module(sys.modules['__main__'].__name__)]


def no_overrides(overrides: Overrides) -> None:
  """Raises: ConfigError for any override: called by programs that take a finished run, whose settings are fixed."""
  for path in overrides:
    raise ConfigError('config.no-overrides', f'--config.{path}', 'this program takes the run as it was made',
                      'change settings with experiments.launch')


def _unknown_flag(name: str) -> ConfigError:
  """The error for a flag that does not exist, with the three most similar ones; `--cofnig.a.b` suggests `--config.a.b`."""
  known = _own_flags() or sorted(flags.FLAGS)
  head, dot, rest = name.partition('.')
  near = [f'--{found}{dot}{rest}' for found in difflib.get_close_matches(head, known, n=3, cutoff=0.0)]
  return ConfigError('config.unknown-flag', f'--{name}', f'this command has no such flag; the nearest are {", ".join(near)}',
                     'see --help; settings of an experiment are changed by --config.FIELD=VALUE')


def _parse_or_leave(argv: Sequence[str]) -> Overrides:
  try:
    overrides = parse(argv)
  except UserError as error:
    sys.exit(told(error))
  except SystemExit:
    sys.exit(0)                     # --help: absl leaves with 1
  verbosity = flags.FLAGS['verbosity']
  if verbosity.using_default_value:     # else absl prints the libraries' own INFO logs
    verbosity.value, verbosity.using_default_value = -1, False
  return overrides


def guarded(main: Main, overrides: Overrides, interrupted: str = 'interrupted') -> int:
  """The exit code of `main`. A UserError prints its message only; any other exception is a bug and prints its traceback."""
  try:
    return main(overrides)
  except UserError as error:
    return _leave_job(told(error))
  except KeyboardInterrupt:
    print(interrupted, file=sys.stderr)
    return _leave_job(interrupt.INTERRUPTED)
  except Exception:
    traceback.print_exc()
    print('this is a bug of Athanor: please report it with the lines above', file=sys.stderr)
    return _leave_job(BUG)


def told(error: UserError) -> int:
  """The error's exit code; prints its message."""
  print(error, file=sys.stderr)
  return error.exit_code


def _leave_job(code: int) -> int:
  """The code; in a job of several processes exits at once instead, because a normal exit would wait for the others."""
  if 'jax' in sys.modules and sys.modules['jax'].distributed.is_initialized():
    _end(code)
  return code


def _end(code: int) -> NoReturn:
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)
