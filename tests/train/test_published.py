"""Models of others as parents: what their files say is compared, what changed is found, and runs go on from them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from align.template_of import template_of
from experiments.export import context
from model.adapt import LoRA
from model.adapter_tree import merge
from model.chat import Plain
from model.errors import ConfigError, DataError
from model.lowrank import LowRank
from model.weights.opening import open_published
from model.weights.peft import write_peft
from tests.data.fake_corpus import FakeCorpus, texts
from train.artifact import Store, decode, encode
from train.data.rows import Rows
from train.data.tokens import Tokens
from train.edits import edited
from train.optimizer import AdamW, Optimizer
from train.published import LocalFiles, Published, PublishedVocabulary
from train.run import Run, Saving, Watch
from train.trained import load

FIXTURE = Path(__file__).parents[1] / 'model' / 'weights' / 'fixtures' / 'llama3'


def words(folder: Path, size: int) -> None:
  """A tokenizer of bytes with so many ids, as a folder of Hugging Face's has it."""
  import tokenizers
  from tokenizers import decoders, models, pre_tokenizers
  alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
  vocab = {'<bos>': 0, '<eos>': 1, '<pad>': 2} | {letter: 3 + i for i, letter in enumerate(alphabet)}
  vocab |= {f'<extra_{i}>': i for i in range(len(vocab), size)}
  made = tokenizers.Tokenizer(models.BPE(vocab, []))
  made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False), decoders.ByteLevel()
  made.add_special_tokens(['<bos>', '<eos>', '<pad>', *(name for name in vocab if name.startswith('<extra'))])
  made.save(str(folder / 'tokenizer.json'))
  named = {f'{role}_token': f'<{role}>' for role in ('bos', 'eos', 'pad')}
  (folder / 'tokenizer_config.json').write_text(json.dumps(named))


@pytest.fixture(scope='module')
def world(tmp_path_factory):
  """(a published model of 300 ids, its store): the fixture with a larger table, in a folder of its own."""
  from model.weights.folder import open_tensors, write_tensors
  from model.weights.tensor import Tensor
  root = tmp_path_factory.mktemp('published')
  folder = root / 'theirs'
  shutil.copytree(FIXTURE, folder)
  config = json.loads((folder / 'config.json').read_text()) | {'vocab_size': 300}
  (folder / 'config.json').write_text(json.dumps(config))
  table = np.random.default_rng(0).normal(size=(300, 32)).astype(np.float32) * 0.3
  kept = {name: tensor.whole() for name, tensor in open_tensors(FIXTURE).items()} | {'model.embed_tokens.weight': table}
  write_tensors(folder, [Tensor(name, w.shape, w.dtype, lambda slices, w=w: np.array(w[slices])) for name, w in kept.items()])
  words(folder, 300)
  files = LocalFiles(name='files', path=str(folder))
  vocabulary = PublishedVocabulary(name='words', files=files, size=300)
  model = replace(open_published(folder).config)
  found = Published(name='theirs', files=files, vocabulary=vocabulary, model=model, template=Plain())
  store = Store(root / 'runs')
  store.make(found)
  return found, store


def test_it_is_opened_as_a_run_is(world):
  found, store = world
  trained = load(found, store)
  assert (trained.run, trained.step, trained.tokenizer.size) == (found, 0, 300)
  np.testing.assert_array_equal(trained.params['embedding']['table'],
                                open_published(found.files.find(store)).tensors['model.embed_tokens.weight'].whole())
  cut = load(replace(found), store, jax.devices())
  assert len(cut.params['layers']['mlp']['up']['weight'].sharding.device_set) == 8
  jax.tree.map(lambda one, other: np.testing.assert_array_equal(np.asarray(one), np.asarray(other)), cut.params, trained.params)
  assert template_of(found) == Plain() and decode(encode(found)) == found


def child(found: Published, **fields) -> Run:
  tokens = Tokens(name='tokens', corpus=FakeCorpus(name='fake', train=texts(20)), vocabulary=found.vocabulary)
  run = Run(name='child', model=found.model, restore=found, rows=Rows(tokens, 32), batch=8, steps=8,
            optimizer=Optimizer(AdamW(lr=1e-2)), watch=Watch(heldout=0, metrics=1), saving=Saving(every=0))
  return replace(run, **fields)


@pytest.mark.parametrize('edits', [(), (LoRA(2),)], ids=['whole', 'lora'])
def test_a_run_goes_on_from_it(edits, world, tmp_path):
  found, store = world
  folder = Store(tmp_path, (store.root,)).make(child(found, edits=edits))
  losses = [json.loads(line)['loss'] for line in (folder / 'metrics.jsonl').read_text().splitlines() if '"loss"' in line]
  assert losses[-1] < losses[0] - 0.2


def test_it_reads_as_far_as_its_files_say_and_a_run_over_it_no_less(world):
  found, store = world
  after = child(found)
  longer = replace(after, rows=replace(after.rows, length=96))
  assert [context(each, store) for each in (found, after, longer)] == [64, 64, 96]
  assert context(replace(after, restore=None), store) == 32


def test_other_ids_are_refused(world):
  found, _ = world
  with pytest.raises(ConfigError, match=r'config\.other-vocabulary'):
    child(found, restore=replace(found, vocabulary=replace(found.vocabulary, files=replace(found.vocabulary.files, path='/x'))))


@pytest.mark.parametrize('change, said', [
  (lambda found: replace(found, model=replace(found.model, layers=3)), 'layers = 2'),
  (lambda found: replace(found, vocabulary=replace(found.vocabulary, size=299)), 'set it to 300'),
  (lambda found: replace(found, files=replace(found.files, path='/nowhere')), 'check the path')])
def test_what_the_files_do_not_say_is_refused(change, said, world, tmp_path):
  with pytest.raises((ConfigError, DataError), match=said):
    Store(tmp_path).make(change(world[0]))


def test_files_that_changed_are_found(world, tmp_path):
  found, _ = world
  folder = tmp_path / 'theirs'
  shutil.copytree(found.files.path, folder)
  moved = replace(found.files, path=str(folder))
  other = replace(found, files=moved, vocabulary=replace(found.vocabulary, files=moved))
  store = Store(tmp_path / 'runs')
  store.make(other)
  load(other, store)
  weights = bytearray((folder / 'model.safetensors').read_bytes())
  weights[-1] ^= 1
  (folder / 'model.safetensors').write_bytes(weights)
  with pytest.raises(DataError, match=r'weights\.changed'):
    load(other, store)
  text = (folder / 'tokenizer.json').read_text()
  (folder / 'tokenizer.json').write_text(text.replace('<extra_299>', '<extra_999>'))
  with pytest.raises(DataError, match=r'tokenizer\.damaged'):
    other.vocabulary.load(store)


def test_adapters_of_others_are_merged(world, tmp_path):
  found, store = world
  plain = load(found, store).params
  adapted = edited((LoRA(2, alpha=6.0),), plain, jax.random.key(0))
  learned = jax.tree.map(lambda w: replace(w, b={part: b + 0.1 for part, b in w.b.items()}) if isinstance(w, LowRank) else w,
                         adapted, is_leaf=lambda w: isinstance(w, LowRank))
  write_peft(tmp_path / 'adapters', found.model, learned)
  other = replace(found, adapters=LocalFiles(name='adapters', path=str(tmp_path / 'adapters')))
  there = Store(tmp_path / 'runs', (store.root,))
  there.make(other)
  merged = load(other, there).params
  jax.tree.map(lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6), merged, merge(learned))
  before, after = (tree['layers']['mlp']['up']['weight'] for tree in (plain, merged))
  assert float(abs(before - after).max()) > 1e-3
