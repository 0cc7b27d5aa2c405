"""Which of several ways to compute one thing a door takes, and why none that it would rather take."""

from typing import NamedTuple


class Choice(NamedTuple):
  """Who does a call, and why those before it in the order of preference do not."""

  name: str
  refused: dict[str, str]

  def __str__(self) -> str:
    others = '; '.join(f'not {name}: {why}' for name, why in self.refused.items())
    return f'{self.name} ({others})' if others else self.name
