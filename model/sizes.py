"""Named sizes. Each is a `Decoder`; `dataclasses.replace` makes a variant: `replace(named('llama_1b'), vocab=65_536)`.

The first five are Llama-like (RMSNorm, rotary, gated SiLU, no biases), for a vocabulary trained here; the others are as
published.
"""

from model.config import (
  Attention,
  Decoder,
  Gated,
  LayerNorm,
  Learned,
  Llama3,
  Plain,
  RMSNorm,
  Rotary,
)
from model.errors import ConfigError


def heads(width: int, count: int, kv: int | None = None) -> Attention:
  """An even split of the width into heads; `kv` of them have keys and values (None: all).

  Raises: ConfigError with the nearest counts that divide the width.
  """
  if width % count:
    valid = sorted((n for n in range(1, width + 1) if width % n == 0), key=lambda n: abs(n - count))[:2]
    raise ConfigError('config.heads', f'width {width} with {count} heads', 'the heads share the width evenly',
                      f'use {" or ".join(map(str, sorted(valid)))} heads, or a width of {-(-width // count) * count}')
  return Attention(count, count if kv is None else kv, width // count)


def llama(vocab: int, width: int, layers: int, count: int, kv: int | None = None, hidden: int | None = None) -> Decoder:
  """A Llama-like decoder. `hidden` None: 8/3 of the width, rounded up to a multiple of 16."""
  hidden = -(-8 * width // 48) * 16 if hidden is None else hidden
  return Decoder(vocab, width, layers, heads(width, count, kv), Gated(hidden))


def gpt2(width: int, layers: int, count: int) -> Decoder:
  """Radford et al. 2019: learned positions, LayerNorm and biases everywhere, a tied head."""
  attention = Attention(count, count, width // count, qkv_bias=True, out_bias=True)
  return Decoder(50_257, width, layers, attention, Plain(4 * width, 'gelu_tanh', bias=True), LayerNorm(),
                 positions=Learned(1024))


def llama3(width: int, layers: int, count: int, hidden: int, *, tied: bool, factor: float) -> Decoder:
  """Llama 3.1 and 3.2 (Meta 2024): 8 key heads, theta 500,000 with their scaling."""
  return Decoder(128_256, width, layers, heads(width, count, 8), Gated(hidden), RMSNorm(1e-5),
                 positions=Rotary(500_000.0, scaling=Llama3(factor)), tied=tied)


SIZES: dict[str, Decoder] = {
  'tiny': llama(512, 32, 2, 2),                       # 41 thousand: tests and --dry_run
  '1m': llama(2_048, 128, 4, 4),                      # seconds to minutes on a CPU
  '4m': llama(2_048, 256, 5, 4),
  '10m': llama(8_192, 256, 8, 8, hidden=688),         # the model of the CPU benchmark, but tied
  '30m': llama(16_384, 448, 8, 7),
  'smollm2_135m': Decoder(49_152, 576, 30, heads(576, 9, 3), Gated(1_536), positions=Rotary(100_000.0)),
  'gpt2_124m': gpt2(768, 12, 12),
  'gpt2_350m': gpt2(1_024, 24, 16),
  'gpt2_774m': gpt2(1_280, 36, 20),
  'gpt2_1.5b': gpt2(1_600, 48, 25),
  'llama_1b': llama3(2_048, 16, 32, 8_192, tied=True, factor=32.0),
  'llama_3b': llama3(3_072, 28, 24, 8_192, tied=True, factor=32.0),
  'llama_8b': llama3(4_096, 32, 32, 14_336, tied=False, factor=8.0),
  'llama_70b': llama3(8_192, 80, 64, 28_672, tied=False, factor=8.0),
}


def named(name: str) -> Decoder:
  """The size of this name.

  Raises: ConfigError with the known names.
  """
  if name not in SIZES:
    raise ConfigError('config.unknown-size', f'model size {name!r}', 'no size has this name',
                      f'use one of {", ".join(SIZES)}')
  return SIZES[name]
