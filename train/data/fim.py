"""Fill-in-the-middle: a part of the documents is cut in three and rearranged, so that a model learns to fill a gap.

Bavarian et al. 2022, "Efficient training of language models to fill in the middle": cuts between characters, the halves
in either order, and the end of the document after the middle.

    prefix first    <|fim_prefix|> prefix <|fim_suffix|> suffix <|fim_middle|> middle
    suffix first    <|fim_prefix|> <|fim_suffix|> suffix <|fim_middle|> prefix middle
"""

from collections.abc import Iterator
from dataclasses import dataclass

from model.errors import ConfigError
from model.tokenizer import FIM_MIDDLE, FIM_PREFIX, FIM_SUFFIX, Tokenizer
from train.data.shuffle import fractions, key


@dataclass(frozen=True)
class Fim:
  """Which texts are rearranged. Texts above `longest` characters are cut there first, so that a gap fits into a row."""

  rate: float = 0.5                      # of the texts that are rearranged
  suffix_first: float = 0.5              # of these, the share that is written suffix first
  longest: int = 4096
  seed: int = 0

  def __post_init__(self):
    for field in ('rate', 'suffix_first'):
      if not 0 <= getattr(self, field) <= 1:
        raise ConfigError('config.out-of-range', f'fim.{field} = {getattr(self, field)}', 'it is a share', 'use 0 to 1')
    if self.longest < 1:
      raise ConfigError('config.out-of-range', f'fim.longest = {self.longest}', 'it counts characters', 'use 1 or more')

  def __call__(self, text: str, id: str, tokenizer: Tokenizer) -> Iterator[list[int]]:
    """The token ids of each part of a document, without bos and eos; a function of the seed and the document alone."""
    for part, start in enumerate(range(0, max(len(text), 1), self.longest)):
      yield self._rearranged(text[start:start + self.longest], key(self.seed, 'fim', id, part), tokenizer)

  def _rearranged(self, text: str, key: int, tokenizer: Tokenizer) -> list[int]:
    chosen, order, *cuts = fractions(key, 4)
    if chosen >= self.rate:
      return tokenizer.encode(text)
    first, second = sorted(int(cut * (len(text) + 1)) for cut in cuts)
    prefix, middle, suffix = (tokenizer.encode(part) for part in (text[:first], text[first:second], text[second:]))
    mark = tokenizer.controls
    if order < self.suffix_first:
      return [mark[FIM_PREFIX], mark[FIM_SUFFIX], *suffix, mark[FIM_MIDDLE], *prefix, *middle]
    return [mark[FIM_PREFIX], *prefix, mark[FIM_SUFFIX], *suffix, mark[FIM_MIDDLE], *middle]
