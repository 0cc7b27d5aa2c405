"""Models for others: what is written is read again to the bit, by us and by their libraries, or refused."""

import io
import json
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sentencepiece
from absl import flags

from experiments import command
from experiments import export as program
from model import chat
from model.adapt import LoRA
from model.chat import ChatML, Message
from model.config import Gated
from model.errors import UserError
from model.jinja_template import Jinja
from model.lowrank import LowRank
from model.quantize import Quantize
from model.tokenizer import CONTROLS, HARD, SPACE, SentencePiece, train_bpe
from model.tokenizer_json import TokenizerJson
from model.weights import chat_source, exporting, tokenizing
from model.weights.exporting import export, export_gguf
from model.weights.gguf import open_gguf
from model.weights.gguf_model import write_model
from model.weights.loading import abstract, load
from model.weights.opening import open_published, open_tokenizer
from tests.model.variants import VARIANTS, made, small
from train.trained import Trained

TEXTS = ['The quick brown fox   jumps over the lazy dog, 1234 times.\n\n\n', 'aaaa aaa aa a\n  indented\n    more == ====\n',
         'caf\u00e9 na\u00efve \u4e2d\u6587', Path(__file__).read_text(encoding='utf-8')]
VOCAB = 480                                  # a few more than the tokenizer has
FIXTURES = Path(__file__).parent / 'fixtures'


@pytest.fixture(scope='session')
def learnt(tmp_path_factory):
  """A tokenizer as `Vocabulary` makes them."""
  path = tmp_path_factory.mktemp('tokens') / 'tokenizer.model'
  path.write_bytes(train_bpe(TEXTS, 470))
  return SentencePiece(path)


@cache
def grown(**changes):
  """A Llama with room for the tokenizer, and its parameters."""
  config = small(vocab=VOCAB, **changes)
  return config, made(config)[1]


def adapted(params, *edits):
  """With adapters as they might be after training."""
  for edit in (LoRA(3), *edits):
    params = edit(params, jax.random.key(1))

  def learn(w):
    return replace(w, b={part: 0.1 * jax.random.normal(jax.random.key(2), b.shape) for part, b in w.b.items()}) \
        if isinstance(w, LowRank) else w

  return jax.tree.map(learn, params, is_leaf=lambda w: isinstance(w, LowRank))


def loaded(path, config):
  opened = open_published(path)
  assert opened.config == replace(config, compute_dtype='float32', stream_dtype='float32', param_dtype='float32')
  device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  return load(opened.config, opened.rules, opened.tensors, jax.tree.map(lambda _: device, abstract(opened.config)))


def same(one, other, within=0.0):
  jax.tree.map(lambda a, b: np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=within, atol=within), one, other)


@pytest.mark.parametrize('name', sorted(path.name for path in FIXTURES.iterdir()))
def test_a_folder_is_the_model_to_the_bit(name, learnt, tmp_path):
  config = replace(open_published(FIXTURES / name).config, vocab=VOCAB, compute_dtype='bfloat16')
  if name == 'roberta':                        # whose documents begin where its tokenizer's id of padding says
    config = replace(config, positions=replace(config.positions, first=learnt.pad + 1))
  params = made(config)[1]
  found = export(tmp_path / 'a', config, params, learnt)
  same(loaded(tmp_path / 'a', config), params)
  assert found.tensors == len(open_published(tmp_path / 'a').tensors) and (found.change, found.left_out) == (0.0, ())


@pytest.mark.parametrize('name', ['llama3', 'qwen', 'post'])
def test_a_model_unlike_all_families_is_refused(name, learnt, tmp_path):
  config = replace(VARIANTS[name], vocab=VOCAB)
  with pytest.raises(UserError, match='no-family'):
    export(tmp_path / 'a', config, made(config)[1], learnt)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('kind, within', [('bfloat16', 2**-8), ('float16', 2**-10)])
def test_tensors_in_fewer_bits_are_rounded_and_no_more(kind, within, learnt, tmp_path):
  config, params = grown()
  export(tmp_path / 'a', config, params, learnt, kind=kind)
  assert {each.dtype for each in open_published(tmp_path / 'a').tensors.values()} == {jnp.dtype(kind)}
  back = loaded(tmp_path / 'a', config)
  same(back, params, within)
  with pytest.raises(AssertionError):
    same(back, params, within / 100)


def test_a_learnt_tokenizer_goes_out_with_its_ids(learnt, tmp_path):
  """Blanks are blanks in the written vocabulary, so U+2581 is its bytes there too."""
  config, params = grown()
  export(tmp_path / 'a', config, params, learnt, ChatML())
  export_gguf(tmp_path / 'a.gguf', config, params, learnt, ChatML())
  for place, size in ((tmp_path / 'a', learnt.size), (tmp_path / 'a.gguf', VOCAB)):
    found = open_tokenizer(place)
    assert (found.size, found.bos, found.eos, found.pad) == (size, learnt.bos, learnt.eos, learnt.pad) and found.lossless
    assert found.controls.items() <= learnt.controls.items()
    for text in (*HARD, *TEXTS, f'a{SPACE} b{SPACE}{SPACE}', ' ' * 100):
      assert found.encode(text) == learnt.encode(text)
  data = tokenizing.json_of(learnt)
  assert tokenizing.json_of(TokenizerJson(data, tokenizing.Specials(*tokenizing.named(learnt)))) == data
  said = json.loads((tmp_path / 'a' / 'generation_config.json').read_text())
  assert said['eos_token_id'] == [learnt.controls['<|im_end|>'], learnt.eos]
  metadata = open_gguf(tmp_path / 'a.gguf').metadata
  assert metadata['tokenizer.ggml.eot_token_id'] == learnt.controls['<|im_end|>']
  assert metadata['tokenizer.chat_template'] == chat_source.source_of(ChatML(), learnt)


def test_a_tokenizer_that_would_lie_is_refused(tmp_path):
  """Scores of a unigram model are no order of merges."""
  written = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(TEXTS), model_writer=written, model_type='unigram', vocab_size=380, hard_vocab_limit=False,
    byte_fallback=True, normalization_rule_name='identity', remove_extra_whitespaces=False, add_dummy_prefix=False,
    pad_id=0, bos_id=1, eos_id=2, unk_id=3, control_symbols=list(CONTROLS[4:]), minloglevel=2)
  (tmp_path / 'tokenizer.model').write_bytes(written.getvalue())
  config, params = grown()
  for write, name in ((export, 'a'), (export_gguf, 'a.gguf')):
    with pytest.raises(UserError, match='unlike'):
      write(tmp_path / name, config, params, SentencePiece(tmp_path / 'tokenizer.model'))
  assert [path.name for path in tmp_path.iterdir()] == ['tokenizer.model']


@pytest.mark.parametrize('template', [
  ChatML(), ChatML('Say "x"\n {{ a }} \\n \u00e9\U0001f600'), chat.Plain(), chat.Plain('b')])
def test_a_template_of_ours_is_a_text_in_jinja(template, learnt):
  source = chat_source.source_of(template, learnt)
  names = {i: name for name, i in learnt.controls.items()}

  def text(ids):
    return b''.join(names[i].encode() if i in names else learnt.decode_bytes([i]) for i in ids).decode()

  written = partial(Jinja(source=source).write, chat_source.Names.of(learnt))
  for talk in ([Message('user', ' x ')], [Message('system', 's'), Message('user', 'a'), Message('assistant', 'b'),
                                         Message('user', '')]):
    assert written(talk, True) == text(chat.prompt(template, learnt, talk))
    assert written(talk, False) == text(chat.render(template, learnt, talk).ids.tolist())
  assert chat_source.source_of(Jinja(source=source), learnt) == source
  assert not chat_source._equal(source.replace('bos_token', 'eos_token'), template, learnt)


def test_a_template_without_words_is_said_to_be_left_out(learnt, tmp_path):
  config, params = grown()
  template = Jinja(system='a default that its text does not know of', source=chat_source.source_of(ChatML(), learnt))
  [lost] = export(tmp_path / 'a', config, params, learnt, template).left_out
  assert 'Jinja' in lost and 'chat_template' not in json.loads((tmp_path / 'a' / 'tokenizer_config.json').read_text())
  assert any('User:' in each for each in export(tmp_path / 'b', config, params, learnt, chat.Plain()).left_out)
  with pytest.raises(UserError, match='no-control'):
    export(tmp_path / 'c', config, params, learnt, chat.Gemma())


def test_adapters_are_merged_and_few_bits_are_asked_for(learnt, tmp_path):
  config, params = grown()
  found = export(tmp_path / 'a', config, adapted(params) | {'reward': {'weight': jnp.zeros(3)}}, learnt)
  assert 0 < found.change < 1e-4 and found.left_out == ('reward: it is no part of the model itself',)
  model = made(config)[0]
  merged, tokens_BL = loaded(tmp_path / 'a', config), jnp.arange(24).reshape(2, 12) * 19
  logits = jax.jit(lambda each: model.logits(each, model.hidden(each, tokens_BL).x_BLD))
  first, second, base = map(logits, (merged, adapted(params), params))
  np.testing.assert_allclose(first, second, atol=1e-4)
  assert np.abs(first - base).max() > 0.1
  few = Quantize('int8')(params, jax.random.key(0))
  for tree, said in ((few, 'weights.quantised'), (adapted(few), 'edit.merge-quantised')):
    with pytest.raises(UserError, match=said):
      export(tmp_path / 'b', config, tree, learnt)
    assert export(tmp_path / said, config, tree, learnt, dequantise=True).tensors == found.tensors


@pytest.mark.parametrize('changes, name', [({}, 'llama'), ({'tied': False}, 'llama'), ('qwen2', 'qwen2'), ('qwen3', 'qwen3')])
@pytest.mark.parametrize('kind, within', [('F32', 0), ('F16', 2**-10), ('Q8_0', 0.02)])
def test_a_gguf_file_is_the_model(changes, name, kind, within, learnt, tmp_path):
  if isinstance(changes, str):
    theirs = open_published(FIXTURES / name).config
    changes = {'attention': replace(theirs.attention, window=None), 'width': 32, 'norm': theirs.norm}
  config, params = grown(**changes)
  path = tmp_path / 'a.gguf'
  assert export_gguf(path, config, params, learnt, kind=kind).family == name
  same(loaded(path, config), params, within)


def test_rows_of_q_and_k_lie_as_llama_cpp_wants_them(tmp_path):
  """Its converter's formula: w.reshape(heads, 2, size / 2, in).swapaxes(1, 2)."""
  config, params = small(), made(small())[1]
  write_model(tmp_path / 'a.gguf', config, params, {}, 'F32')
  w_DGSK = np.asarray(params['layers']['attention']['qkv']['weight'])[1]
  tensors = open_gguf(tmp_path / 'a.gguf').tensors
  q = w_DGSK[:, :, :2].reshape(16, 4, 2, 4).transpose(1, 3, 2, 0).reshape(32, 16)
  np.testing.assert_array_equal(tensors['blk.1.attn_q.weight'].whole(), q)
  k = w_DGSK[:, :, 2].reshape(16, 2, 2, 4).transpose(1, 3, 2, 0).reshape(16, 16)
  np.testing.assert_array_equal(tensors['blk.1.attn_k.weight'].whole(), k)
  np.testing.assert_array_equal(tensors['blk.1.attn_v.weight'].whole(), w_DGSK[:, :, 3].reshape(16, 16).T)


@pytest.mark.parametrize('name', ['gemma2', 'mixtral', 'neox', 'smollm3', 'qwen'])
def test_what_a_gguf_file_does_not_say_is_refused(name, tmp_path):
  with pytest.raises(UserError, match='no-family'):
    write_model(tmp_path / 'a.gguf', VARIANTS[name], made(VARIANTS[name])[1], {})
  with pytest.raises(UserError, match='no-family'):
    write_model(tmp_path / 'a.gguf', small(mlp=Gated(24, 'gelu')), made(small())[1], {})
  assert not list(tmp_path.iterdir())


def test_nothing_is_written_over_and_nothing_by_halves(learnt, tmp_path, monkeypatch):
  config, params = grown()
  for write, name in ((export, 'a'), (export_gguf, 'a.gguf')):
    write(tmp_path / name, config, params, learnt)
    with pytest.raises(UserError, match='there already'):
      write(tmp_path / name, config, params, learnt)
  before = sorted(tmp_path.rglob('*'))
  large = jax.tree.map(lambda x: x * 1e6, params)
  with pytest.raises(UserError, match='beyond-type'):
    export(tmp_path / 'b', config, large, learnt, kind='float16')
  with pytest.raises(UserError, match='beyond-type'):
    export_gguf(tmp_path / 'b.gguf', config, large, learnt)
  with pytest.raises(UserError, match='int8'):
    export(tmp_path / 'b', config, params, learnt, kind='int8')
  with pytest.raises(UserError, match='other-size'):
    export(tmp_path / 'b', small(), made(small())[1], learnt)
  monkeypatch.setattr(exporting, 'write_tensors', lambda *_: (_ for _ in ()).throw(OSError(28, 'No space left on device')))
  with pytest.raises(UserError, match='No space left'):
    export(tmp_path / 'b', config, params, learnt)
  assert sorted(tmp_path.rglob('*')) == before


@pytest.fixture
def told():
  """Sets the program's flags as a command line does, and puts them back."""
  saved = flags.FLAGS.flag_values_dict()
  yield lambda *given: command.parse(['export', *given])
  for name in ('into', 'run', 'format', 'dtype', 'base', 'dequantise'):
    flags.FLAGS[name].value = saved[name]


def test_the_command_writes_each_format(learnt, tmp_path, monkeypatch, told, capsys):
  config, params = grown()
  monkeypatch.setattr(program, 'load_model', lambda path: (SimpleNamespace(name='mine', lineage_of_edits=()), tmp_path))
  monkeypatch.setattr(program, 'template_of', lambda run: ChatML())
  monkeypatch.setattr(program, 'context', lambda run, store: 96)
  monkeypatch.setattr(program, 'open_run', lambda run, store: Trained(run, made(config)[0], adapted(params), learnt, 7))
  for form, name, kind in (('hf', 'a', 'bfloat16'), ('gguf', 'a.gguf', 'q8_0'), ('peft', 'b', 'float32')):
    assert program.main(told(f'--into={tmp_path / name}', f'--format={form}', f'--dtype={kind}')) == 0
    said = capsys.readouterr().out
    assert str(tmp_path / name) in said and ('merged adapters move a logit' in said) == (form != 'peft')
  folder, file = open_published(tmp_path / 'a'), open_published(tmp_path / 'a.gguf')
  assert folder.config == file.config == config and folder.context == file.context == 96
  assert (tmp_path / 'b' / 'adapter_model.safetensors').exists()


@pytest.mark.parametrize('given, said', [
  ([], 'export.no-place'), (['--into=a', '--format=gguf'], 'export.no-place'), (['--into=a.gguf'], 'export.no-place'),
  (['--into=.'], 'weights.there'), (['--into=a', '--dtype=q8_0'], 'export.dtype'),
  (['--into=a', '--format=peft', '--dtype=bfloat16'], 'export.dtype'), (['--into=a', '--run=nowhere'], 'config.no-run'),
  (['--into=a', '--format=onnx'], 'config.bad-flag'), (['--into=a', '--config.seed=1'], 'config.no-overrides')])
def test_bad_flags_are_refused(given, said, told):
  with pytest.raises(UserError, match=said):
    program.main(told(*given))
