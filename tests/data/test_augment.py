"""Augmentation: copies depend on the seed and the document alone, keep to training documents, and say what they are."""

from collections import Counter
from dataclasses import dataclass, replace

import pytest

from model.errors import ConfigError, DataError
from train.artifact import Store
from train.data.augment import Noise, Synonyms, synonyms
from train.data.dedupe import ExactDuplicates
from train.data.document import Document, held_out
from train.data.rewrite import SENTENCE, Rewrite
from train.data.spare import spared

TEXT = 'The great and small states of this union\nhave kept, as before, their great peace. It held.'


def document(text: str, id: str = 'a') -> Document:
  return Document(text, 'test', id, {'year': '1790'})


@pytest.fixture
def words(tmp_path) -> str:
  (tmp_path / 'words.tsv').write_text('# a note\ngreat\tlarge, mighty\nPeace\tcalm\n')
  return str(tmp_path / 'words.tsv')


@dataclass(frozen=True)
class Shouter:
  """A rewriter that needs no model: capitals, and the seed as a mark that it was passed on."""

  mark: str = '!'

  def open(self, store):
    return lambda spans, seeds: [span.upper() + self.mark * (seed % 3) for span, seed in zip(spans, seeds, strict=True)]


def test_copies_stand_beside_the_original_under_names_of_their_own():
  outcome = Noise(copies=2).open()(document(TEXT))
  original, first, second = outcome.documents
  assert original == document(TEXT) and outcome.effect == 'added' and outcome.reasons[0].places == 2
  assert [first.id, second.id] == ['a#noise0', 'a#noise1'] and first.text != second.text
  assert first.meta == {'year': '1790', 'augmented': 'noise'} and first.source == 'test'


@pytest.mark.parametrize('stage', [Noise(), Noise(swap=0.5, delete=0.5)])
def test_copies_depend_on_seed_and_document_alone(stage):
  make = stage.open()
  once = make(document(TEXT))
  make(document(TEXT, 'b'))
  assert make(document(TEXT)) == once == stage.open()(document(TEXT))
  assert make(document(TEXT, 'b')).documents[1:] != once.documents[1:]
  assert Noise(seed=1, swap=0.5).open()(document(TEXT)) != Noise(seed=2, swap=0.5).open()(document(TEXT))


def test_noise_of_known_kinds():
  text = '\n'.join(' '.join(f'w{i}.{j}' for j in range(50)) for i in range(40))
  swapped = Noise(swap=0.1, delete=0, double=0).open()(document(text)).documents[1].text
  assert [sorted(line.split()) for line in swapped.split('\n')] == [sorted(line.split()) for line in text.split('\n')]
  assert 0.1 < sum(a != b for a, b in zip(text.split(), swapped.split())) / 2000 < 0.25
  deleted = Noise(swap=0, delete=0.1, double=0).open()(document(text)).documents[1].text.split()
  assert set(deleted) < set(text.split()) and 0.87 < len(deleted) / 2000 < 0.93
  doubled = Counter(Noise(swap=0, delete=0, double=0.1).open()(document(text)).documents[1].text.split())
  assert set(doubled.values()) == {1, 2} and 0.07 < sum(count == 2 for count in doubled.values()) / 2000 < 0.13


def test_without_noise_there_is_no_copy():
  assert Noise(swap=0, delete=0, double=0).open()(document(TEXT)).effect == 'kept'


def test_synonyms_replace_words_and_nothing_else(words):
  copy = Synonyms(words, share=1.0).open()(document('Great peace: GREAT, greatest.\n great')).documents[1].text
  first, second, third, *rest = copy.split(' ')
  assert first in ('Large', 'Mighty') and second == 'calm:' and third in ('Large,', 'Mighty,')
  assert ' '.join(rest) in ('greatest.\n large', 'greatest.\n mighty')
  assert Synonyms(words, share=0.0).open()(document(TEXT)).effect == 'kept'
  assert synonyms(words) == {'great': ['large', 'mighty'], 'peace': ['calm']}
  assert [path.name for path in Synonyms(words).files()] == ['words.tsv']


@pytest.mark.parametrize('line', ['great large', 'great\t', 'great\t , '])
def test_a_broken_line_of_synonyms_is_named(tmp_path, line):
  (tmp_path / 'words.tsv').write_text(f'a\tb\n{line}\n')
  with pytest.raises(DataError, match=r'words\.tsv:2'):
    Synonyms(str(tmp_path / 'words.tsv')).open()


def test_shares_are_shares():
  for wrong in (lambda: Noise(swap=1.5), lambda: Synonyms('x', share=-0.1), lambda: Rewrite(Shouter(), share=2.0)):
    with pytest.raises(ConfigError):
      wrong()


def test_sentences_add_up_to_the_text(sample):
  for path in sample.glob('*.txt'):
    text = path.read_text()
    assert ''.join(SENTENCE.findall(text)) == text
  assert SENTENCE.findall('One. "Two?" 3.5 is\nfour...') == ['One.', ' ', '"Two?"', ' ', '3.5 is', '\n', 'four...']


def test_a_rewriter_gets_the_chosen_sentences_and_what_it_writes_takes_their_places(tmp_path):
  write = Rewrite(Shouter(mark=''), share=1.0).open(Store(tmp_path))
  [outcome] = write([document(TEXT)])
  assert outcome.documents[1].text == TEXT.upper() and outcome.documents[1].id == 'a#rewritten0'
  some = Rewrite(Shouter(), share=0.5).open(Store(tmp_path))
  documents = [document(TEXT, str(i)) for i in range(20)]
  together, alone = some(documents), [some([each])[0] for each in documents]
  assert together == alone, 'whatever the batch'
  assert 3 < sum(outcome.effect == 'added' for outcome in together) <= 20
  assert len({len(outcome.documents[-1].text) for outcome in together}) > 2, 'seeds are passed on'


def test_held_out_documents_are_not_copied_and_no_copy_is_held_out(tmp_path):
  documents = [document(f'{TEXT} Number {i}.', str(i)) for i in range(200)]
  held = {d.id for d in documents if held_out(d.text, 4)}
  local, batched = spared(Noise(swap=0.2), 4).open(), spared(Rewrite(Shouter(), share=1.0), 4).open(Store(tmp_path))
  for outcomes in ([local(d) for d in documents], batched(documents)):
    copies = [copy for outcome in outcomes for copy in outcome.documents[1:]]
    assert len(copies) > 90 and not any(copy.id.split('#')[0] in held or held_out(copy.text, 4) for copy in copies)
    assert [outcome.documents[0] for outcome in outcomes] == documents


def test_copies_of_what_is_held_out_together_are_not_made_either(tmp_path):
  """Whatever their own texts hash to: with `by`, only what `meta` says there counts."""
  documents = [replace(document(f'{TEXT} Number {i}.', str(i)), meta={'film': f'film {i % 20}'}) for i in range(200)]
  outside = [not held_out(d.meta['film'], 4) for d in documents]
  local = spared(Noise(swap=0.2), 4, 'film').open()
  batched = spared(Rewrite(Shouter(), share=1.0), 4, 'film').open(Store(tmp_path))
  for outcomes in ([local(d) for d in documents], batched(documents)):
    copied = [len(outcome.documents) == 2 for outcome in outcomes]
    assert 0.7 * sum(outside) < sum(copied) and all(out or not copy for out, copy in zip(outside, copied))
    assert any(held_out(d.text, 4) and copy for d, copy in zip(documents, copied))


def test_only_augmentations_augment():
  with pytest.raises(ConfigError, match='ExactDuplicates'):
    spared(ExactDuplicates(), 20)
