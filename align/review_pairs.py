"""Pairs of film reviews: who asks for a favourable review of a film prefers the fresh one to the rotten one.

Fresh or rotten is what the site said of the whole review, not of the one sentence kept here, so not every pair can be told by
reading: a logistic regression on words and pairs of words is right on 79% of the pairs of films that it never saw.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

from align.conversations import WHOLE, Messages, from_text
from align.preferences import Pair
from align.reviews import VERDICTS, Verdict, asks
from model.errors import ConfigError, DataError
from train.data.corpus import Corpus
from train.data.document import Document, Split
from train.data.shuffle import key, permutation


class Review(NamedTuple):
  """A review, and the id of its document."""

  id: str
  answer: Messages


def review_in(document: Document) -> tuple[str, Verdict, Review]:
  """(film, verdict, review) of a document of `Reviews`. Raises: DataError for another document."""
  where = f'{document.source}:{document.id}'
  for verdict in VERDICTS:
    if 'film' in document.meta and document.meta.get('kind') == verdict:
      return document.meta['film'], verdict, Review(where, from_text(document.text, where)[-1:])
  raise DataError('pair.no-review', where, f'it has of film and kind: {document.meta}', 'read the corpus with Reviews()')


def check_films(corpus: Corpus) -> None:
  """Raises: ConfigError unless the corpus holds films out as a whole, so that none is in both splits."""
  if corpus.heldout_by != 'film':
    raise ConfigError('pair.films', f'corpus {corpus.name!r}: heldout_by = {corpus.heldout_by}',
                      'a film would be on both sides', "set heldout_by to 'film'")


@dataclass(frozen=True)
class SameFilm:
  """Couples of a fresh and a rotten review of one film, no review in two of them; the seed decides which go together.

  Each couple is a pair for each verdict that is `asked` for: the fresh review is chosen where `fresh` is asked for, the rotten
  one where `rotten` is. With both, a model that does not read the prompt is right on exactly half of the pairs.
  """

  asked: tuple[Verdict, ...] = VERDICTS
  seed: int = 0

  stages: ClassVar = WHOLE

  def __post_init__(self):
    if not self.asked or len(set(self.asked)) < len(self.asked):
      raise ConfigError('config.out-of-range', f'asked = {self.asked}', 'it says for what reviews one is asked',
                        f'give one or both of {", ".join(VERDICTS)}')

  def __call__(self, corpus: Corpus, folder: Path, split: Split, counts: Counter[str]) -> Iterator[tuple[str, Pair]]:
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

  def _named(self, film: str, verdict: Verdict, couple: dict[Verdict, Review]) -> tuple[str, Pair]:
    better, worse = couple[verdict], couple['rotten' if verdict == 'fresh' else 'fresh']
    return f'{better.id} > {worse.id}', Pair(asks(film, verdict), better.answer, worse.answer)
