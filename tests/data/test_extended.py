"""Vocabularies with more control tokens: the ids that text had, the next ids for the new, the same for whoever reads them."""

import json
from dataclasses import replace

import pytest

from model.errors import ConfigError, DataError
from model.tokenizer import HARD
from model.tokenizer_gguf import tokenizer_of
from model.weights.opening import open_tokenizer
from model.weights.tokenizing import json_of, metadata_of
from tests.data.fake_corpus import FakeCorpus, texts
from tests.train.test_published import words
from train.artifact import Store, decode, encode
from train.data.codes import CodedTokens
from train.data.document import Document
from train.data.extended import MANIFEST, ExtendedVocabulary, added_to
from train.data.vocabulary import Vocabulary
from train.published import LocalFiles, PublishedVocabulary

TOKENS = ('<|tool|>', '<|result with blanks \u00fc|>')
CORPUS = FakeCorpus(name='fake', train=texts(30), heldout=texts(5, 1))


@pytest.fixture(scope='module', params=['sentencepiece', 'json'])
def bases(request, tmp_path_factory):
  """A vocabulary that was learnt here, or one of others, and the store that holds it."""
  root = tmp_path_factory.mktemp('extended')
  store = Store(root / 'runs')
  if request.param == 'sentencepiece':
    base = Vocabulary(name='learnt', corpus=CORPUS, size=340)
  else:
    (root / 'theirs').mkdir()
    words(root / 'theirs', 300)
    path = root / 'theirs' / 'tokenizer.json'
    path.write_text(path.read_text().replace('"use_regex": false', '"use_regex": true', 1))         # GPT-2's rule
    base = PublishedVocabulary(name='theirs', files=LocalFiles(name='files', path=str(root / 'theirs')), size=300)
  value = ExtendedVocabulary(name='extended', base=base, tokens=TOKENS)
  store.make(value)
  return base, value, store


def test_old_ids_are_what_they_were_and_new_ones_follow(bases):
  base, value, store = bases
  before, after = base.load(store), value.load(store)
  assert after.size == value.size == base.size + 2
  assert after.controls == before.controls | {TOKENS[0]: base.size, TOKENS[1]: base.size + 1}
  assert (after.bos, after.eos, after.pad) == (before.bos, before.eos, before.pad)
  assert after.fingerprint != before.fingerprint
  for text in (*HARD, *texts(10), *TOKENS, f'a{TOKENS[0]}b {TOKENS[1]}\n'):
    assert after.encode(text) == before.encode(text)
    assert after.decode(after.encode(text)) == text
  assert after.decode([base.size, *after.encode('so'), base.size + 1]) == 'so'


def test_it_is_found_again_and_refused_when_damaged(bases, tmp_path):
  _, value, store = bases
  theirs = ExtendedVocabulary(name='e', base=PublishedVocabulary(name='p', files=LocalFiles(name='f', path='x'), size=9),
                              tokens=TOKENS)
  assert decode(encode(theirs)) == theirs and theirs.size == 11 and 'size' not in encode(theirs)
  assert value.opening(store)().fingerprint == value.load(store).fingerprint
  other = Store(tmp_path)
  folder = other.make(value)
  path = next(path for path in folder.iterdir() if path.name.startswith('tokenizer'))
  path.write_bytes(path.read_bytes().replace(b'tool', b'fool'))
  with pytest.raises(DataError, match=r'tokenizer\.damaged'):
    value.load(other)


def test_it_is_extended_again_and_known_by_what_it_extends(bases):
  base, value, store = bases
  more = ExtendedVocabulary(name='more', base=value, tokens=('<|third|>',))
  store.make(more)
  assert more.load(store).controls['<|third|>'] == base.size + 2 == more.size - 1
  assert [added_to(base, each) for each in (base, value, more)] == [0, 2, 3] and added_to(value, more) == 1
  assert added_to(more, value) is None and added_to(replace(base, size=base.size + 1), value) is None


def test_others_read_the_same_ids(bases, tmp_path):
  """tokenizer.json and what llama.cpp reads, of both kinds; transformers' fast tokenizers are the first."""
  _, value, store = bases
  tokenizer = value.load(store)
  (tmp_path / 'tokenizer.json').write_bytes(json_of(tokenizer))
  names = {i: name for name, i in tokenizer.controls.items()}
  (tmp_path / 'tokenizer_config.json').write_text(json.dumps(
      {f'{role}_token': names[getattr(tokenizer, role)] for role in ('bos', 'eos', 'pad')}))
  read = open_tokenizer(tmp_path)
  assert read.size == tokenizer.size and tokenizer.controls.items() - read.controls.items() <= {('<|unk|>', 3)}
  assert [read.encode(text) for text in texts(10)] == [tokenizer.encode(text) for text in texts(10)]
  back = tokenizer_of(metadata_of(tokenizer, tokenizer.size))
  assert back.size == tokenizer.size and tokenizer.controls.items() - back.controls.items() <= {('<|unk|>', 3)}
  assert [back.encode(text) for text in texts(10)] == [tokenizer.encode(text) for text in texts(10)]


def test_what_cannot_be_added_is_refused(bases, tmp_path):
  base, value, store = bases
  for tokens in ((), ('<|a|>', '<|a|>'), (' ',)):
    with pytest.raises(ConfigError, match=r'vocabulary\.tokens'):
      replace(value, tokens=tokens)
  eos = next(name for name, i in base.load(store).controls.items() if i == base.load(store).eos)
  for token in (eos, 'e'):
    with pytest.raises(ConfigError, match=r'vocabulary\.token-there'):
      Store(tmp_path, (store.root,)).make(replace(value, tokens=(token,)))
  assert (store.find(value) / MANIFEST).exists()


class Kinds(FakeCorpus):
  """Documents that say of themselves what they are."""

  def documents(self, folder, split):
    for document in super().documents(folder, split):
      yield Document(document.text, document.source, document.id, {'kind': document.source})


def test_codes_stand_before_texts_and_are_not_learnt(bases, tmp_path):
  base, value, store = bases
  corpus = Kinds(name='kinds', train=texts(6), heldout=texts(2, 1))
  there, codes = Store(tmp_path, (store.root,)), (('even', TOKENS[0]), ('odd', TOKENS[1]))
  tokens = CodedTokens(name='coded', corpus=corpus, vocabulary=value, field='kind', codes=codes)
  there.make(tokens)
  split, tokenizer = tokens.open(there, 'train'), value.load(store)
  for number, text in enumerate(corpus.train):
    span = slice(*split.offsets[number:number + 2])
    assert split.ids[span].tolist() == [tokenizer.bos, base.size + number % 2, *tokenizer.encode(text), tokenizer.eos]
    assert split.mask[span].tolist() == [0, 0] + [1] * (len(tokenizer.encode(text)) + 1)
  for wrong, said in ((replace(tokens, codes=codes[:1]), 'odd'), (replace(tokens, vocabulary=base), TOKENS[1])):
    with pytest.raises(DataError) as caught:
      there.make(replace(wrong, name='wrong'))
    assert said in str(caught.value)
