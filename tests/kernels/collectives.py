"""The collectives of a compiled program, read from its text."""

import re
from typing import NamedTuple

COLLECTIVE = re.compile(r'= (.*?) (all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(?:-start)?\(')


class Exchange(NamedTuple):
  """A collective; one of several arrays counts once for each."""

  kind: str
  shape: tuple[int, ...]
  inside: bool                         # in a loop or a branch, and not once in the program
  dtype: str                           # in XLA's short form


def exchanged(text: str) -> set[Exchange]:
  """The collectives of a program."""
  found, inside = set(), True
  for line in text.splitlines():
    if line[:1].strip():
      inside = not line.startswith('ENTRY')
    if match := COLLECTIVE.search(line):
      arrays = re.findall(r'(\w+)\[([\d,]*)\]', match[1])
      found |= {Exchange(match[2], tuple(map(int, filter(None, shape.split(',')))), inside, dtype) for dtype, shape in arrays}
  return found
