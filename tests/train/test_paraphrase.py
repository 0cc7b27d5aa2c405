"""A corpus augmented by a model that was itself trained here: the longest lineage that there is."""

import jax
import pytest

from model.errors import ConfigError
from model.generate import generate
from model.sampling import Sampling
from tests.train.runs import tiny_run
from train.artifact import Store, digest, lineage
from train.data.corpus import Corpus
from train.data.rewrite import Rewrite
from train.paraphrase import Paraphrase
from train.trained import load


def test_a_trained_run_rewrites_sentences_and_only_those(tmp_path):
  trained = tiny_run(tmp_path)
  corpus = Corpus(name='again', sources=trained.rows.tokens.corpus.sources, stages=(), heldout_modulo=3,
                  augment=(Rewrite(Paraphrase(trained, max_new=8), share=0.1),))
  assert [thing.name for thing in lineage(corpus)] == ['c', 'v', 't', 'r', 'again']
  store = Store(tmp_path / 'runs')
  folder = store.make(corpus)
  texts = {document.id: document.text for document in corpus.documents(folder, 'train')}
  plain = [document.text for document in _plain(trained, store)]
  copies = [text for text in texts.values() if text not in plain]
  assert copies and sorted(texts.values()) == sorted(plain + copies)
  assert all('The state of the union' in text for text in copies)
  assert list(corpus.documents(folder, 'heldout')) == _plain(trained, store, 'heldout')


def test_what_is_written_depends_on_the_span_and_its_seed_alone(tmp_path):
  store = Store(tmp_path / 'runs')
  trained = tiny_run(tmp_path)
  store.make(trained)
  write = Paraphrase(trained, max_new=8).open(store)
  spans = ['It is strong. ', 'Peace.']
  assert write(spans, [1, 2]) == write(spans[:1], [1]) + write(spans[1:], [2])
  assert write(spans[:1] * 2, [1, 5])[0] != write(spans[:1] * 2, [1, 5])[1]


def test_many_at_a_time_are_written_as_each_would_be_alone(tmp_path):
  store = Store(tmp_path / 'runs')
  trained = tiny_run(tmp_path)
  store.make(trained)
  spans = ['Peace.', 'It is strong. ', 'War and peace, and all that is between them, year after year. ', 'So.']
  seeds = [7, 1, 5, 9]
  alone = [one(load(trained, store), span, seed) for span, seed in zip(spans, seeds)]
  assert len(set(alone)) == 4
  for batch in (1, 3, 8):
    assert Paraphrase(trained, max_new=8, batch=batch).open(store)(spans, seeds) == alone
  assert digest(Paraphrase(trained, batch=1)) == digest(Paraphrase(trained, batch=8))


def one(trained, span: str, seed: int) -> str:
  """The span in other words, with no other beside it."""
  tokenizer = trained.tokenizer
  said = generate(trained.model, trained.params, [[tokenizer.bos, *tokenizer.encode(f'{span.strip()}\nIn other words: ')]],
                  max_new=8, sampling=Sampling(temperature=0.7), stop=(tuple(tokenizer.encode('\n')),),
                  key=jax.random.key(seed), eos=tokenizer.eos, limit=tokenizer.size)
  text = tokenizer.decode([int(id) for id in said.tokens[0] if id != tokenizer.eos]).strip()
  return span.replace(span.strip(), text) if text else span


def test_a_prompt_without_a_place_for_the_sentence_is_refused(tmp_path):
  with pytest.raises(ConfigError, match='span'):
    Paraphrase(tiny_run(tmp_path), prompt='Say it again:')


def _plain(trained, store, split='train'):
  corpus = trained.rows.tokens.corpus
  return list(corpus.documents(store.find(corpus), split))
