"""Preferences from critics: of two reviews of one film, whoever asks for a favourable one wants the fresh one.

What is known is what the site made of the whole review, not of the sentence, so not every pair can be told by reading:
words and pairs of words, weighed by logistic regression, tell 79% of those of films that it never saw.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

from align.conversations import WHOLE, Messages, from_text
from align.preferences import Named, Pair
from align.reviews import VERDICTS, Verdict, asks
from model.errors import ConfigError, DataError
from train.data.corpus import Corpus
from train.data.document import Document, Split
from train.data.shuffle import key, permutation


class Review(NamedTuple):
  """A review, and where it is from."""

  id: str
  answer: Messages


def review_in(document: Document) -> tuple[str, Verdict, Review]:
  """(film, verdict, review) of a document of `Reviews`. Raises: DataError if it is none."""
  where = f'{document.source}:{document.id}'
  for verdict in VERDICTS:
    if 'film' in document.meta and document.meta.get('kind') == verdict:
      return document.meta['film'], verdict, Review(where, from_text(document.text, where)[-1:])
  raise DataError('pair.no-review', where, f'it has of film and kind: {document.meta}', 'read the corpus with Reviews()')


def check_films(corpus: Corpus) -> None:
  """Returns when no film is on both sides. Raises: ConfigError."""
  if corpus.heldout_by != 'film':
    raise ConfigError('pair.films', f'corpus {corpus.name!r}: heldout_by = {corpus.heldout_by}',
                      'a film would be on both sides', "set heldout_by to 'film'")


@dataclass(frozen=True)
class SameFilm:
  """A fresh and a rotten review of one film, no review in two such couples; which come together, the seed decides.

  Each couple is a pair for each verdict that is `asked` for: the favourable one is chosen where `fresh` is, the other
  where `rotten` is. With both, a score that does not read what was asked is right in exactly half of the pairs.
  """

  asked: tuple[Verdict, ...] = VERDICTS
  seed: int = 0

  stages: ClassVar = WHOLE

  def __post_init__(self):
    if not self.asked or len(set(self.asked)) < len(self.asked):
      raise ConfigError('config.out-of-range', f'asked = {self.asked}', 'it says for what reviews one is asked',
                        f'give one or both of {", ".join(VERDICTS)}')

  def __call__(self, corpus: Corpus, folder: Path, split: Split, counts: Counter[str]) -> Iterator[Named]:
    """Raises: ConfigError if the corpus does not hold films out as a whole; DataError for a document that is no review."""
    check_films(corpus)
    films: defaultdict[str, dict[Verdict, list[Review]]] = defaultdict(lambda: {verdict: [] for verdict in VERDICTS})
    for document in corpus.documents(folder, split):
      film, verdict, review = review_in(document)
      films[film][verdict].append(review)
      counts['reviews read'] += 1
    for film, reviews in films.items():
      couples = self._couples(film, reviews)
      counts.update({'films': 1, 'films of which two are paired': int(bool(couples)), 'couples': len(couples),
                     'reviews left out: no partner': sum(map(len, reviews.values())) - 2 * len(couples)})
      yield from (self._named(film, verdict, couple) for couple in couples for verdict in self.asked)

  def _couples(self, film: str, reviews: dict[Verdict, list[Review]]) -> list[dict[Verdict, Review]]:
    orders = [permutation(key(self.seed, 'reviews', film, verdict), len(reviews[verdict])) for verdict in VERDICTS]
    return [{verdict: reviews[verdict][place] for verdict, place in zip(VERDICTS, places)} for places in zip(*orders)]

  def _named(self, film: str, verdict: Verdict, couple: dict[Verdict, Review]) -> Named:
    better, worse = couple[verdict], couple['rotten' if verdict == 'fresh' else 'fresh']
    return Named(f'{better.id} > {worse.id}', Pair(asks(film, verdict), better.answer, worse.answer))
