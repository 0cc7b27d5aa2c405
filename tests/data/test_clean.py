"""Clean-up, cutting, language, and personal data: known texts in, known texts out."""

import time
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from model.errors import ConfigError
from train.data.clean import SplitLong, Unicode, cut
from train.data.document import Document
from train.data.language import Language
from train.data.pii import IBAN_LENGTHS, KINDS, Pii, luhn, scrub
from train.data.readers import TextFiles


def through(stage, text: str):
  return stage.open()(Document(text, 'test', 'id'))


@pytest.mark.parametrize('text, clean, reasons', [
  ('plain ASCII\n\ttext\x0c', None, []),
  ('“quotes”, ﬁ, \uff21, &amp; — é stay', None, []),
  ('a\r\nb\rc\u2028d', 'a\nb\nc\nd', [('line endings', 3)]),
  ('nul\0 bell\a bom\ufeff', 'nul bell bom', [('control characters', 3)]),
  ('\x1b[31mred\x1b[0m', 'red', [('terminal escapes', 2)]),
  ('cafÃ©\nplain\nnaÃ¯ve', 'café\nplain\nnaïve', [('mojibake', 2)]),
  ('e\u0301', 'é', [('composed form', 1)]),
])
def test_unicode(text, clean, reasons):
  outcome = through(Unicode(), text)
  assert outcome.documents[0].text == (text if clean is None else clean)
  assert [(reason.name, reason.places) for reason in outcome.reasons] == reasons


@settings(max_examples=50, deadline=None)
@given(st.text())
@example('\N{MULTIPLICATION SIGN}\x1f\N{SUPERSCRIPT TWO}')
def test_clean_text_stays_as_it_is(text):
  """But for what control characters stood between, which looks like mojibake once they are gone."""
  once = through(Unicode(), text)
  for document in once.documents:
    assert through(Unicode(), document.text).effect == 'kept' or any(unicodedata.category(letter) == 'Cc' for letter in text)


def test_the_sample_is_clean_already(sample):
  for document in TextFiles(f'{sample}/*.txt').read():
    assert through(Unicode(), document.text).documents[0].text == document.text


@settings(max_examples=200)
@given(st.text(alphabet='ab. \n', max_size=200), st.integers(2, 20))
def test_pieces_add_up_and_are_not_longer_than_the_limit(text, limit):
  pieces = list(cut(text, limit))
  assert ''.join(pieces) == text and all(len(piece) <= limit for piece in pieces)


def test_long_documents_are_cut_between_paragraphs():
  outcome = through(SplitLong(20), 'first part here\n\nsecond part')
  assert [(d.id, d.text) for d in outcome.documents] == [('id/0', 'first part here\n\n'), ('id/1', 'second part')]
  assert outcome.reasons[0].places == 1 and outcome.reasons[0].bytes == 0


@pytest.mark.parametrize('text, reason', [
  ('The Congress shall have power to lay and collect taxes, duties and excises.', None),
  ('Der Bundestag wird vom Volke in allgemeiner, freier und geheimer Wahl gewählt.', 'language de'),
  ('La loi est la même pour tous, soit qu\u2019elle protège, soit qu\u2019elle punisse.', 'language fr'),
])
def test_language(text, reason):
  outcome = through(Language(), text)
  assert [r.name for r in outcome.reasons] == ([reason] if reason else [])
  assert not through(Language(('en', 'de', 'fr')), text).reasons


def test_language_wants_a_language():
  with pytest.raises(ConfigError):
    Language(())


@pytest.mark.parametrize('kind, text, clean', [
  ('email', 'write to jane.doe+news@mail.example.co.uk, or not', 'write to [EMAIL], or not'),
  ('email', 'a@b, user@host and @handle are none', None),
  ('phone', 'call (202) 456-1414 or 202-456-1414 or 1-202-456-1414.', 'call [PHONE] or [PHONE] or [PHONE].'),
  ('phone', 'from abroad +44 20 7946 0958 or +1 (202) 456-1414', 'from abroad [PHONE] or [PHONE]'),
  ('phone', 'in 1861-1865 they spent 202,456,1414 on 555-1234 and +5 more', None),
  ('card', 'card 4111 1111 1111 1111, 5500-0000-0000-0004', 'card [CARD], [CARD]'),
  ('card', 'no card: 4111 1111 1111 1112, $4,111,111,111', None),
  ('ssn', 'SSN 123-45-6789', 'SSN [SSN]'),
  ('ssn', 'no one has 000-12-3456, 666-12-3456, 912-34-5678, 123-00-4567 or 123-45-0000', None),
  ('iban', 'pay DE89 3704 0044 0532 0130 00 BANK or GB82WEST12345698765432', 'pay [IBAN] BANK or [IBAN]'),
  ('iban', 'not DE89 3704 0044 0532 0130 01', None),
  ('ip', 'hosts 8.8.8.8 and 2001:4860:4860::8888, please', 'hosts [IP] and [IP], please'),
  ('ip', 'at 12:30:45 on 192.168.0.1, version 1.2.3, 999.1.1.1, ::1', None),
])
def test_personal_data(kind, text, clean):
  assert scrub(text, kind)[0] == (text if clean is None else clean)


def test_a_document_says_what_was_scrubbed_and_how_often():
  before, after = 'a@b.org, c@d.org, 8.8.8.8', '[EMAIL], [EMAIL], [IP]'
  outcome = through(Pii(), before)
  assert outcome.documents[0].text == after
  assert [(reason.name, reason.places) for reason in outcome.reasons] == [('email', 2), ('ip', 1)]
  assert sum(reason.bytes for reason in outcome.reasons) == len(after) - len(before)


def test_speeches_hold_no_personal_data(sample):
  for document in TextFiles(f'{sample}/*.txt').read():
    assert through(Pii(), document.text).effect == 'kept'


def test_checksums_tell_every_single_wrong_digit():
  card = '4111111111111111'
  for place in range(16):
    wrong = card[:place] + str((int(card[place]) + 3) % 10) + card[place + 1:]
    assert luhn(card) and not luhn(wrong)
  assert all(15 <= length <= 34 for length in IBAN_LENGTHS.values())


@pytest.mark.parametrize('piece', ['a', '1', '1 ', '1-', '@', 'a@', 'a.', '1.', ':', 'A1', '+1 ', '(2', ' ', '\n', 'é'])
def test_hostile_text_takes_linear_time(piece):
  text, start = piece * (300_000 // len(piece)), time.monotonic()
  for kind in KINDS:
    scrub(text, kind)
  through(Unicode(), text)
  assert time.monotonic() - start < 20      # a quadratic one takes hours
