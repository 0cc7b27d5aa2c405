"""Quality: every rule drops the page that was written to break it, spares real prose, and its measures equal a plain count."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.data import page as p
from train.data.document import Document
from train.data.page import Page
from train.data.quality import C4, FineWeb, Gopher, GopherRepetition
from train.data.readers import TextFiles

SENTENCE = 'The people of the {} have to be with that union of states, and of {} counties in it.'
PROSE = '\n\n'.join(SENTENCE.format(f'north{i}', f'{i * i} western') for i in range(12))


def reason(stage, text: str) -> str | None:
  reasons = stage.open()(Document(text, 'test', 'id')).reasons
  return reasons[0].name if reasons else None


def lines(count: int, form: str) -> str:
  return '\n'.join(form.format(i, chr(97 + i % 26)) for i in range(count))


TWICE = lines(100, 'w{0}') + ' ' + (lines(30, 'v{0}') + ' ') * 2


@pytest.mark.parametrize('stage, text, broken', [
  (Gopher(), 'the people of it', 'gopher: too few words'),
  (Gopher(most_words=100), PROSE, 'gopher: too many words'),
  (Gopher(), 'a of to be I ' * 20, 'gopher: words too short'),
  (Gopher(), 'constitutional parliamentary responsibilities ' * 20, 'gopher: words too long'),
  (Gopher(), PROSE + ' #' * 40, 'gopher: hash signs'),
  (Gopher(), PROSE + ' etc...' * 40, 'gopher: ellipses'),
  (Gopher(), PROSE.replace('The people', '- The people'), 'gopher: bulleted lines'),
  (Gopher(ellipses=0.1), lines(50, 'the people of the state number {0} and more') + lines(15, '\nand of {0}...'),
   'gopher: lines end in an ellipsis'),
  (Gopher(), PROSE + ' 1790 1791' * 100, 'gopher: words without a letter'),
  (Gopher(), 'citizens gather where rivers cross between northern mountains ' * 10, 'gopher: stop words'),
  (GopherRepetition(), lines(10, 'line {0}') + '\nagain and again' * 10, 'gopher: repeated lines'),
  (GopherRepetition(lines=1), 'x\n\n' + '\n\n'.join(['once more'] * 5), 'gopher: repeated paragraphs'),
  (GopherRepetition(), lines(20, '{0}') + '\nthis long line stands there twice and takes most of the page' * 2,
   'gopher: characters in repeated lines'),
  (GopherRepetition(lines=1, line_characters=1, paragraphs=1), PROSE + '\n\n' + PROSE,
   'gopher: characters in repeated paragraphs'),
  (GopherRepetition(), ' '.join(f'cookie policy w{i}' for i in range(40)), 'gopher: most common 2-gram'),
  (GopherRepetition(repeated=(1,) * 6, most_common=(1, 1, 0.16)), 'buy one get two, ' * 5 + lines(20, 'w{0}'),
   'gopher: most common 4-gram'),
  (GopherRepetition(), TWICE, 'gopher: repeated 5-grams'),
  (GopherRepetition(repeated=(1, 1, 1, 1, 1, 0.1)), TWICE, 'gopher: repeated 10-grams'),
  (FineWeb(), lines(20, 'a line of some forty characters, number {0},'), 'fineweb: lines without punctuation'),
  (FineWeb(), lines(9, 'This line is one of its kind, {0}.') + '\nThis one is here three times.' * 3,
   'fineweb: characters in repeated lines'),
  (FineWeb(), lines(9, 'Item {0}.'), 'fineweb: short lines'),
  (C4(), PROSE + ' Lorem ipsum dolor.', 'c4: lorem ipsum'),
  (C4(), 'function() { return; }', 'c4: curly bracket'),
  (C4(), 'Only one sentence is in here.', 'c4: too few sentences'),
])
def test_a_rule_drops_the_page_that_breaks_it(stage, text, broken):
  assert reason(stage, text) == broken


@pytest.mark.parametrize('stage', [Gopher(), GopherRepetition(), FineWeb()])
def test_prose_is_spared(stage, sample):
  texts = [document.text for document in TextFiles(f'{sample}/*.txt').read()]
  assert [reason(stage, text) for text in texts] == [None] * 11
  assert stage == GopherRepetition() or reason(stage, PROSE) is None


def test_c4_keeps_sentences_and_counts_the_lines_that_go():
  good = 'This is a proper sentence, it ends.\n\nHere is one more of them!\nAnd "a third of the kind."'
  outcome = C4().open()(Document(f'Menu\n{good}\nToo short.\nWe use cookies on this page today.\nand so on...', 'test', 'id'))
  assert outcome.documents[0].text == good
  assert {r.name: r.places for r in outcome.reasons} == {
    'c4: lines without a final mark': 2, 'c4: lines of few words': 1, 'c4: boilerplate lines': 1}


WORDS = st.lists(st.sampled_from(['a', 'bb', 'ccc', 'dddd']), min_size=1, max_size=60)


@settings(max_examples=100, deadline=None)
@given(WORDS, st.integers(2, 6))
def test_runs_are_counted_as_one_would_by_hand(words, n):
  page = Page(' '.join(words))
  total = sum(map(len, words))
  runs = [tuple(words[i:i + n]) for i in range(len(words) - n + 1)]
  counts = Counter(runs)
  most = max(counts.values(), default=0)
  longest = max((sum(map(len, run)) for run in counts if counts[run] == most), default=0)
  assert p.most_common_share(page, n) == pytest.approx(most * longest / total if most > 1 else 0)
  covered = {i + k for i, run in enumerate(runs) if run in runs[:i] for k in range(n)}
  assert p.repeated_share(page, n) == pytest.approx(sum(len(words[i]) for i in covered) / total)


@settings(max_examples=50, deadline=None)
@given(WORDS)
def test_longer_runs_repeat_less(words):
  """Why `GopherRepetition` may stop when 5-grams repeat less than any limit."""
  shares = [p.repeated_share(Page(' '.join(words)), n) for n in range(5, 11)]
  assert shares == sorted(shares, reverse=True)


def test_measures_of_nothing_are_nothing():
  page = Page('')
  assert p.share(page.lines, p.is_short) == p.mean_length(page.tokens) == p.most_common_share(page, 2) == 0
  assert p.repeated_share(page, 5) == 0 and p.repeats(page.lines) == (0, 0)


@pytest.mark.parametrize('text, count', [('One. Two! Three?', 3), ('Mr. Smith said "No." Then', 2), ('3.14 is pi', 0)])
def test_sentences(text, count):
  assert p.sentences(text) == count
