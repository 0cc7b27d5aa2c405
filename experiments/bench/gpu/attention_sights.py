"""What attention is timed on, on a GPU: packed, windowed and causal rows of 4k and 16k tokens, in the order that matters."""

from dataclasses import dataclass

from experiments.bench.sights import Sight


@dataclass(frozen=True)
class Window(Sight):
  """Causal rows that see so many keys at most, their own included."""

  window: int = 1024

  @property
  def name(self) -> str:
    return f'window {self.length} x {self.head_size}'

  def flops(self, each: int) -> float:
    """FLOPs of all live scores of all heads, at `each` (FORWARD or BOTH) times K."""
    live = self.batch * sum(min(row + 1, self.window) for row in range(self.length))
    return float(each * self.head_size * self.heads * live)


def sights(quick: bool) -> list[Sight]:
  """Those that are measured: what runs train on first, since time may end."""
  if quick:
    return [Sight(64, 256, True, 512), Window(64, 256, False, 512, 32), Sight(64, 256, False, 512)]
  first = [kind(size, length) for length in (4096, 16_384) for size in (128, 64) for kind in (packed, window)]
  return [*first, *(causal(size, length) for length in (4096, 16_384) for size in (128, 64)),
          *(kind(256, length) for length in (4096, 16_384) for kind in (packed, window, causal))]


def packed(size: int, length: int) -> Sight:
  return Sight(size, length, True)


def causal(size: int, length: int) -> Sight:
  return Sight(size, length, False)


def window(size: int, length: int) -> Sight:
  return Window(size, length, False)
