"""What attention is timed on, on a GPU: packed, windowed and causal rows of 4k and 16k tokens; any environment can import it.

FLOPs are those of live scores alone: two products forward and five backward (the scores again, and four gradients), each
2 K for a query and a key that it sees. What a form computes and throws away counts for nothing.
"""

from dataclasses import dataclass

import numpy as np

WIDTH, MEAN = 2048, 512                # of all heads together; and tokens of a document
FORWARD, BOTH = 4, 14                  # times K: FLOPs of a live score


@dataclass(frozen=True)
class Sight:
  """Rows of queries and keys of a head size: causal, or packed with documents of 256 to 768 tokens."""

  head_size: int
  length: int
  packed: bool
  tokens: int = 16_384

  @property
  def batch(self) -> int:
    return self.tokens // self.length

  @property
  def heads(self) -> int:
    return WIDTH // self.head_size

  @property
  def name(self) -> str:
    return f'{"packed" if self.packed else "causal"} {self.length} x {self.head_size}'

  def segments(self) -> np.ndarray:
    """i32[B, L]: documents 1, 2, ... of each row; one document where rows are not packed."""
    if not self.packed:
      return np.ones((self.batch, self.length), np.int32)
    random = np.random.default_rng(0)
    lengths = random.integers(MEAN // 2, MEAN * 3 // 2, (self.batch, 4 * self.length // MEAN + 4))
    rows = [np.repeat(np.arange(1, len(row) + 1), row)[:self.length] for row in lengths]
    return np.stack(rows).astype(np.int32)

  def flops(self, each: int) -> float:
    """FLOPs of all live scores of all heads, at `each` (FORWARD or BOTH) times K."""
    counts = [np.unique(row, return_counts=True)[1].astype(float) for row in self.segments()]
    live = sum((count * (count + 1) / 2).sum() for count in counts)
    return float(each * self.head_size * self.heads * live)


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
