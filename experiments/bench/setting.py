"""How long to measure, where the peers are, and where things may be left."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from experiments.bench.driver import Contestant


@dataclass(frozen=True)
class Setting:
  """`folder` is empty and goes away afterwards. `peers` are the interpreters of those environments that exist."""

  folder: Path
  peers: Mapping[str, str]
  turns: int = 5
  quick: bool = False

  def room(self, name: str) -> Path:
    """A new folder for a benchmark."""
    path = self.folder / name
    path.mkdir()
    return path

  def rounds(self, steps: int) -> tuple[int, int]:
    """How many turns each contestant of a race has, of how many steps; two of one where it is quick."""
    return (2, 1) if self.quick else (self.turns, steps)

  def peer(self, name: str, environment: str, module: str, *arguments: str, cache: Path | None = None) -> list[Contestant]:
    """The contestant as a list, empty where its environment was not made.

    `cache` is a folder for what torch.compile keeps: two that share one have spoiled each other's.
    """
    if environment not in self.peers:
      return []
    return [Contestant(name, f'experiments.bench.peers.{module}', arguments, self.peers[environment],
                       {'TORCHINDUCTOR_CACHE_DIR': str(cache)} if cache else {})]
