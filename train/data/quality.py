"""Quality filters, each the published rules of one corpus, with that paper's thresholds as defaults.

A rule is a name and whether the page breaks it; a page is dropped at the first rule that it breaks. The thresholds were
found on English web pages: on other text look at the table before trusting them.
"""

import re
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from train.data import page as p
from train.data.document import Document
from train.data.page import Page
from train.data.stage import Local, Outcome, dropped, edited, kept

Rule = tuple[str, bool]         # its name, and whether it is broken


@dataclass(frozen=True)
class Filter(Local):
  """A stage that drops pages by rules."""

  @abstractmethod
  def rules(self, page: Page) -> Iterator[Rule]:
    """The rules in the order in which they are tried."""

  def open(self) -> Callable[[Document], Outcome]:
    def judge(document: Document) -> Outcome:
      reason = next((name for name, broken in self.rules(Page(document.text)) if broken), None)
      return kept(document) if reason is None else dropped(document, reason)
    return judge


@dataclass(frozen=True)
class Gopher(Filter):
  """The document-level rules of MassiveText (Rae et al. 2021, appendix A.1.1). English only: it asks for stop words."""

  fewest_words: int = 50
  most_words: int = 100_000
  shortest_mean_word: float = 3.0
  longest_mean_word: float = 10.0
  symbols: float = 0.1            # hash signs, or ellipses, for each word
  bullets: float = 0.9            # share of lines that start with a bullet
  ellipses: float = 0.3           # share of lines that end with an ellipsis
  letters: float = 0.8            # share of words with a letter in them
  stop_words: int = 2             # how many different ones of p.STOP_WORDS at least

  def rules(self, page: Page) -> Iterator[Rule]:
    count, mean = len(page.tokens), p.mean_length(page.tokens)
    yield 'gopher: too few words', count < self.fewest_words
    yield 'gopher: too many words', count > self.most_words
    yield 'gopher: words too short', mean < self.shortest_mean_word
    yield 'gopher: words too long', mean > self.longest_mean_word
    yield 'gopher: hash signs', page.text.count('#') > self.symbols * count
    yield 'gopher: ellipses', p.ellipses(page.text) > self.symbols * count
    yield 'gopher: bulleted lines', p.share(page.lines, p.is_bulleted) > self.bullets
    yield 'gopher: lines end in an ellipsis', p.share(page.lines, p.ends_in_ellipsis) > self.ellipses
    yield 'gopher: words without a letter', p.share(page.tokens, p.has_letter) < self.letters
    yield 'gopher: stop words', len(p.STOP_WORDS.intersection(page.words)) < self.stop_words


@dataclass(frozen=True)
class GopherRepetition(Filter):
  """The repetition rules of MassiveText (Rae et al. 2021, table A1): shares of lines, paragraphs and characters.

  `most_common` are limits for the share of characters in the most frequent run of 2, 3 and 4 words; `repeated` for the
  share of characters in runs of 5 to 10 words that stood in the document before.
  """

  lines: float = 0.30
  paragraphs: float = 0.30
  line_characters: float = 0.20
  paragraph_characters: float = 0.20
  most_common: tuple[float, ...] = (0.20, 0.18, 0.16)
  repeated: tuple[float, ...] = (0.15, 0.14, 0.13, 0.12, 0.11, 0.10)

  def rules(self, page: Page) -> Iterator[Rule]:
    lines, line_characters = p.repeats(page.lines)
    paragraphs, paragraph_characters = p.repeats(page.paragraphs)
    yield 'gopher: repeated lines', lines > self.lines
    yield 'gopher: repeated paragraphs', paragraphs > self.paragraphs
    yield 'gopher: characters in repeated lines', line_characters > self.line_characters
    yield 'gopher: characters in repeated paragraphs', paragraph_characters > self.paragraph_characters
    for n, limit in enumerate(self.most_common, 2):
      yield f'gopher: most common {n}-gram', p.most_common_share(page, n) > limit
    if p.repeated_share(page, 5) <= min(self.repeated):     # a run that recurs holds a shorter one: longer have less
      return
    for n, limit in enumerate(self.repeated, 5):
      yield f'gopher: repeated {n}-grams', p.repeated_share(page, n) > limit


@dataclass(frozen=True)
class FineWeb(Filter):
  """The three rules that FineWeb adds (Penedo et al. 2024, section 3.6)."""

  punctuated: float = 0.12        # share of lines that end in punctuation, at least
  repeated: float = 0.10          # share of characters in repeated lines
  short_lines: float = 0.67       # share of lines with fewer than 30 characters

  def rules(self, page: Page) -> Iterator[Rule]:
    yield 'fineweb: lines without punctuation', p.share(page.lines, p.ends_in_punctuation) <= self.punctuated
    yield 'fineweb: characters in repeated lines', p.repeats(page.lines)[1] >= self.repeated
    yield 'fineweb: short lines', p.share(page.lines, p.is_short) >= self.short_lines


BOILERPLATE = re.compile('javascript|terms of use|(?:privacy|cookie) policy|use(?:s|s? of)? cookies', re.IGNORECASE)


@dataclass(frozen=True)
class C4(Local):
  """The rules of C4 (Raffel et al. 2020, section 2.2): lines that are no sentences go, then pages with few of them.

  Left out of the paper's list: bad words (a word list drops too much that is harmless) and repeated spans of three
  sentences (see `NearDuplicates`). It changes text, so use it for web pages rather than for edited prose.
  """

  fewest_words: int = 5           # in a line
  fewest_sentences: int = 3       # in a page

  def open(self) -> Callable[[Document], Outcome]:
    edits = {'c4: lines without a final mark': self._lines(p.ends_a_sentence),
             'c4: lines of few words': self._lines(lambda line: len(line.split()) >= self.fewest_words),
             'c4: boilerplate lines': self._lines(lambda line: not BOILERPLATE.search(line))}

    def judge(document: Document) -> Outcome:
      if 'lorem ipsum' in document.text.lower():
        return dropped(document, 'c4: lorem ipsum')
      if '{' in document.text:
        return dropped(document, 'c4: curly bracket')
      outcome = edited(document, edits)
      few = outcome.documents and p.sentences(outcome.documents[0].text) < self.fewest_sentences
      return dropped(document, 'c4: too few sentences') if few else outcome
    return judge

  @staticmethod
  def _lines(wanted: Callable[[str], bool]) -> Callable[[str], tuple[str, int]]:
    def edit(text: str) -> tuple[str, int]:
      lines = text.split('\n')
      left = [line for line in lines if not line.strip() or wanted(line.strip())]
      return ('\n'.join(left), len(lines) - len(left)) if len(left) < len(lines) else (text, 0)
    return edit
