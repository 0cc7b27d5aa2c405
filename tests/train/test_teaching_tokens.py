"""A published model is taught new tokens: what learns, what a child goes on with, what others get, what is refused."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from align.reference import check_reference
from experiments.export import adapters as as_peft
from model.adapt import LoRA, Merge
from model.decoder import build
from model.errors import ConfigError
from model.lowrank import LowRank
from model.new_tokens import NewTokens
from model.sharding import MeshShape, unbox
from model.sizes import llama
from model.tokenizer_json import Specials, TokenizerJson
from model.weights.exporting import export, export_gguf
from tests.data.fake_corpus import FakeCorpus, texts
from tests.train.going_on import cut_off
from tests.train.runs import checkpoint, same
from tests.train.test_published import child, world
from train.artifact import Store
from train.data.codes import CodedTokens
from train.data.document import Document
from train.data.extended import ExtendedVocabulary
from train.data.rows import Rows
from train.edits import edited
from train.optimizer import AdamW, Optimizer
from train.published import LocalFiles, Published, PublishedVocabulary
from train.run import Saving
from train.trained import Trained, load, same_base

__all__ = ['world']
TOKENS = ('<|even|>', '<|odd|>')


class Kinds(FakeCorpus):
  """Documents that say of themselves what they are."""

  def documents(self, folder, split):
    for document in super().documents(folder, split):
      yield Document(document.text, document.source, document.id, {'kind': document.source})


def taught(found, *, edits=None, **fields):
  """A run over texts with two new tokens."""
  extended = ExtendedVocabulary(name='extended', base=found.vocabulary, tokens=TOKENS)
  corpus = Kinds(name='kinds', train=texts(20), heldout=texts(4, 1))
  tokens = CodedTokens(name='coded', corpus=corpus, vocabulary=extended, field='kind', codes=(('even', TOKENS[0]),
                                                                                             ('odd', TOKENS[1])))
  edits = (NewTokens(2), LoRA(2)) if edits is None else edits
  return child(found, **(dict(name='taught', model=NewTokens(2).model(found.model), rows=Rows(tokens, 64), edits=edits, steps=4,
                              optimizer=Optimizer(AdamW(lr=1e-2)), saving=Saving(every=2)) | fields))


@pytest.fixture(scope='module')
def lineage(world, tmp_path_factory):
  """The published model, a run that teaches it two tokens, and the store that holds both."""
  found, below = world
  store = Store(tmp_path_factory.mktemp('taught'), (below.root,))
  value = taught(found, mesh=MeshShape(data=4, fsdp=2))
  store.make(value)
  return found, value, store


def test_only_adapters_and_the_new_rows_learn(lineage):
  found, value, store = lineage
  before, after = load(found, store).params, load(value, store).params
  old, new = (np.asarray(each['embedding']['table']) for each in (before, after))
  assert new.shape == (302, old.shape[1])
  np.testing.assert_array_equal(new[:300], old)
  assert (np.abs(new[300:] - old.mean(0)).max(1) > 1e-3).all()
  assert value.build().abstract.params['embedding']['table'].shape == (2, old.shape[1])
  names = {name for name in checkpoint(store, value) if name.startswith('params')}
  assert 'params.embedding.table' in names and all('.a' in name or '.b.' in name or 'table' in name for name in names)
  assert all(float(jnp.abs(b).max()) > 0 for w in jax.tree.leaves(after, is_leaf=lambda w: isinstance(w, LowRank))
             if isinstance(w, LowRank) for b in w.b.values())


def test_cut_off_and_gone_on_is_as_never_stopped_on_other_devices_too(lineage):
  _, value, store = lineage
  made = cut_off(value, store)
  store.make(value)
  same(load(value, store).params, made)
  same(load(value, store, jax.devices()).params, made)


def test_a_child_goes_on_with_the_new_rows_and_after_merge_with_a_plain_table(lineage):
  _, value, store = lineage
  more = replace(value, name='more', restore=value, edits=(), steps=1)
  assert more.build().abstract.params['embedding']['table'].shape[0] == 2
  store.make(more)
  new, old = (np.asarray(load(each, store).params['embedding']['table']) for each in (more, value))
  np.testing.assert_array_equal(new[:300], old[:300])
  assert (new[300:] != old[300:]).any()
  merged = replace(more, edits=(Merge(),))
  assert merged.build().frozen == {} and merged.build().abstract.params['embedding']['table'].shape[0] == 302
  again = replace(more, edits=(Merge(), LoRA(2)))
  assert again.build().abstract.params['embedding']['table'] is None


def test_a_policy_that_learns_new_rows_is_no_reference_until_they_are_merged(lineage):
  _, value, _ = lineage
  answers = SimpleNamespace(name='pairs')
  for edits in ((), (LoRA(2),)):
    with pytest.raises(ConfigError, match=r'dpo\.'):
      check_reference(replace(value, restore=value, edits=edits), answers)
  with pytest.raises(ConfigError, match=r'dpo\.moving-reference'):
    check_reference(value, answers)
  check_reference(replace(value, restore=value, edits=(Merge(), LoRA(2))), answers)


def test_without_adapters_all_rows_learn_in_one_table(lineage):
  found, value, store = lineage
  whole = replace(value, name='whole', edits=(NewTokens(2),), steps=1)
  assert whole.build().frozen == {} and whole.build().abstract.params['embedding']['table'].shape[0] == 302
  store.make(whole)
  table = np.asarray(load(whole, store).params['embedding']['table'])
  assert (table[:300] != np.asarray(load(found, store).params['embedding']['table'])).any()


def test_others_get_the_same_ids_and_logits(lineage, tmp_path):
  _, value, store = lineage
  trained = load(value, store)
  export(tmp_path / 'mine', trained.model.config, trained.params, trained.tokenizer)
  again(tmp_path / 'mine', trained, Store(tmp_path / 'runs'))


def test_so_do_those_that_read_gguf(lineage, tmp_path):
  """Of a model that such files have words for, and a tokenizer that cuts by GPT-2's rule."""
  _, value, store = lineage
  config, edits = llama(300, 64, 2, 2), (NewTokens(2), LoRA(2))
  params = edited(edits, unbox(build(config).init(jax.random.key(0))), jax.random.key(1))
  data = load(value, store).tokenizer.data.replace(b'"use_regex": false', b'"use_regex": true', 1)
  tokenizer = TokenizerJson(data, Specials('<bos>', '<eos>', '<pad>'))
  model = build(edits[0].model(config))
  export_gguf(tmp_path / 'mine.gguf', model.config, params, tokenizer, None, 'F32')
  again(tmp_path / 'mine.gguf', Trained(value, model, params, tokenizer, 0), Store(tmp_path / 'runs'))


def said(model, params, tokens_BL):
  return model.logits(params, model.hidden(params, tokens_BL).x_BLD)


def again(path, trained, store):
  """Reads what was written, and compares."""
  files = LocalFiles(name='files', path=str(path))
  vocabulary = PublishedVocabulary(name='words', files=files, size=302)
  back = Published(name='back', files=files, vocabulary=vocabulary, model=trained.model.config)
  store.make(back)
  read = load(back, store)
  assert read.tokenizer.controls == trained.tokenizer.controls
  assert [read.tokenizer.encode(text) for text in texts(9)] == [trained.tokenizer.encode(text) for text in texts(9)]
  tokens_BL = jnp.asarray([[0, 300, 40, 50], [0, 301, 60, 70]])
  ours, theirs = (np.asarray(jax.jit(partial(said, each.model))(each.params, tokens_BL)) for each in (trained, read))
  np.testing.assert_allclose(theirs, ours, rtol=1e-3, atol=2e-4)


def test_peft_has_no_words_for_it(lineage, tmp_path):
  _, value, store = lineage
  with pytest.raises(ConfigError, match=r'peft\.new-tokens'):
    as_peft(tmp_path / 'adapters', load(value, store))


def test_its_adapters_are_never_laid_over_another_s_base(lineage):
  _, value, _ = lineage
  assert not same_base(value, replace(value, name='other', seed=1))


@pytest.mark.parametrize('edits, said', [
  ((LoRA(2),), r'put NewTokens\(count=2, spare=0\)'), ((NewTokens(3), LoRA(2)), r'put NewTokens\(count=2, spare=0\)'),
  ((NewTokens(2, spare=1),), r'put NewTokens\(count=2, spare=0\)'), ((NewTokens(1), NewTokens(1)), 'NewTokens')])
def test_edits_that_do_not_fit_the_vocabulary_are_refused(edits, said, world):
  with pytest.raises(ConfigError, match=r'config\.new-tokens') as caught:
    taught(world[0], edits=edits)
  with pytest.raises(ConfigError, match=said):
    raise caught.value


def test_vocabularies_that_do_not_fit_are_refused(world):
  found, _ = world
  with pytest.raises(ConfigError, match=r'config\.new-tokens'):
    child(found, edits=(NewTokens(2),), model=NewTokens(2).model(found.model))
  value = taught(found)
  stranger = replace(found, vocabulary=replace(found.vocabulary, size=301))
  with pytest.raises(ConfigError, match=r'config\.other-vocabulary'):
    replace(value, restore=stranger)
  with pytest.raises(ConfigError, match=r'config\.vocab'):
    replace(value, model=found.model)
  with pytest.raises(ConfigError, match=r'config\.other-model'):
    replace(value, model=replace(value.model, vocab=303)).build()


def test_a_padded_model_gives_its_spare_rows(world):
  found, _ = world
  small = replace(found, vocabulary=replace(found.vocabulary, size=299))
  with pytest.raises(ConfigError, match=r'put NewTokens\(count=2, spare=1\)'):
    taught(small)
  value = taught(small, edits=(NewTokens(2, spare=1), LoRA(2)), model=NewTokens(2, 1).model(found.model))
  assert value.model.vocab == 301 and value.build().abstract.params['embedding']['table'].shape[0] == 2
