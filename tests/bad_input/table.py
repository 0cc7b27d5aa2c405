"""The table that the catalogue of bad input is: a row is a case of it, and how to do it.

Each file beside this one has the rows of one subject, and adds one with its own `case = Table()`:

    @case(13, 'data.missing-file', 'nothing.txt')
    def a_corpus_of_a_file_that_is_not_there(folder):
      Corpus(name='c', sources=(Text(str(folder / 'nothing.txt')),)).make(folder, Store(folder))
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Case(NamedTuple):
  """One row: `do` is called with an empty folder and must raise a UserError with that id and those words."""

  number: int
  do: Callable[[Path], object]
  id: str
  words: tuple[str, ...]


class Table(list[Case]):
  """Rows; called, it adds one."""

  def __call__(self, number: int, id: str, *words: str) -> Callable:
    """Adds the decorated function."""

    def add(do: Callable[[Path], object]) -> Callable[[Path], object]:
      self.append(Case(number, do, id, words))
      return do

    return add
