"""Errors that a person can mend: what is wrong, why it is wrong, what to do.

They live in the leftmost room that reads anything from a user, so that every room to its right raises the same kind. A
program that catches `UserError` prints `str(error)` and leaves with `error.exit_code`; it never shows a traceback.
"""


class UserError(Exception):
  """A refusal in three parts. `id` is stable (`config.unknown-field`), for tests and for people who search."""

  exit_code = 70

  def __init__(self, id: str, what: str, why: str, do: str):
    super().__init__(id, what, why, do)
    self.id, self.what, self.why, self.do = id, what, why, do

  def __str__(self) -> str:
    return f'error[{self.id}]: {self.what}\n  why: {self.why}\n  do:  {self.do}'


class ConfigError(UserError):
  """A flag, a field or a file of settings is wrong."""
  exit_code = 78


class DataError(UserError):
  """Text, records or a tokenizer are wrong."""
  exit_code = 65


class CheckpointError(UserError):
  """A saved state is damaged, or is not the one that was asked for."""
  exit_code = 65


class StorageError(UserError):
  """A disk is full, a folder cannot be written, or another process holds it."""
  exit_code = 74


class NumericsError(UserError):
  """Numbers stopped being numbers."""
  exit_code = 70


class PeerError(UserError):
  """Another process of this job is gone or differs."""
  exit_code = 69


PREEMPTED = 75  # exit code of a run that saved its state because it was told to leave


def demand(holds: bool, field: str, value, why: str, do: str) -> None:
  """Raises: ConfigError naming the field and its value, unless the condition holds."""
  if not holds:
    raise ConfigError('config.bad-value', f'{field} = {value!r}', why, do)


def positive(thing, *fields: str) -> None:
  """Raises: ConfigError if one of these fields is not above zero."""
  for field in fields:
    value = getattr(thing, field)
    demand(value is None or value > 0, f'{type(thing).__name__}.{field}', value, 'it must be above zero', 'raise it')
