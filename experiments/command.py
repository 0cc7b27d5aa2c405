"""What the commands share: flags, one message for what a person can mend, exit codes that a scheduler can use.

    0 done   75 saved and told to leave: launch again   78 configuration   65 data or checkpoint   74 storage
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
  """Runs `main(overrides)` as an absl program and leaves with its exit code; `interrupted` is what Ctrl-C is answered with."""
  try:
    app.run(lambda overrides: guarded(interrupt.heard(main), overrides, interrupted), flags_parser=_parse_or_leave)
  except SystemExit as leaving:
    leave(int(leaving.code or 0))
    raise


def leave(code: int) -> None:
  """Ends this process at once where a thread hangs that the end would wait for, or stumble over; else returns."""
  if threads.busy():
    _end(code)


def parse(argv: Sequence[str]) -> Overrides:
  """Sets the program's flags, and gives those that change the config: `--config.a.b=v` becomes `{'a.b': 'v'}`.

  Raises: ConfigError for a flag that does not exist or a value that it cannot have.
  """
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
  try:
    stray = flags.FLAGS(others)[1:]
  except flags.UnrecognizedFlagError as error:
    raise _unknown_flag(error.flagname) from error
  except flags.Error as error:
    raise ConfigError('config.bad-flag', str(error), 'the flag cannot have this value', 'see --help') from error
  if stray:
    raise ConfigError('config.stray-word', stray[0], 'settings are given by flags',
                      f'did you mean --config={stray[0]}? See --help')
  _used()
  return overrides


def _used() -> None:
  """Raises: ConfigError for a flag of other commands that this one would pass over, such as --run for --runs."""
  known = _own_flags()
  for flag in (CONFIG, RUNS, RUN):
    if known and flag.present and flag.name not in known:
      raise _unknown_flag(flag.name)


def _own_flags() -> list[str]:
  """Those that the program itself takes; none where it is not the program that runs."""
  return [flag.name for flag in flags.FLAGS.get_key_flags_for_module(sys.modules['__main__'].__name__)]


def no_overrides(overrides: Overrides) -> None:
  """Raises: ConfigError for a program that takes a run as it is, and got settings to change."""
  for path in overrides:
    raise ConfigError('config.no-overrides', f'--config.{path}', 'this program takes the run as it was made',
                      'change settings with experiments.launch')


def _unknown_flag(name: str) -> ConfigError:
  """Names the three nearest flags of this program; a misspelt `--cofnig.a.b` is nearest to `--config.a.b`."""
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
  if verbosity.using_default_value:     # absl would show all that libraries log for their own makers
    verbosity.value, verbosity.using_default_value = -1, False
  return overrides


def guarded(main: Main, overrides: Overrides, interrupted: str = 'interrupted') -> int:
  """The exit code of `main`. What a person can mend is told in one message, a bug keeps its traceback."""
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
  """Prints the message and gives the exit code."""
  print(error, file=sys.stderr)
  return error.exit_code


def _leave_job(code: int) -> int:
  """The code; in a job of several processes ends this one at once, or its peers would wait for it at the exit."""
  if 'jax' in sys.modules and sys.modules['jax'].distributed.is_initialized():
    _end(code)
  return code


def _end(code: int) -> NoReturn:
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)
