"""Adapters in PEFT's form: written and read to the bit, fused ones by their parts; what is not known is refused by name.

What PEFT makes of them, and transformers of the models below, is asked where these are installed (tests/peers/exported.py).
"""

import json
import subprocess
from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.adapt import DoRA, LoRA
from model.adapter_tree import adapters, merge
from model.chat import ChatML, Message, prompt, render
from model.config import AllHeads, Attention, Gated, MoE
from model.errors import UserError
from model.lowrank import LowRank
from model.quantize import Quantize
from model.tokenizer import CONTROLS, HARD, SPACE, SentencePiece, train_bpe
from model.weights.exporting import export, export_gguf
from model.weights.families import family_for
from model.weights.loading import published
from model.weights.opening import open_published
from model.weights.peft import read_peft, write_peft
from model.weights.safetensors import open_safetensors, write_safetensors
from tests.model.variants import made, small, tokens
from tests.model.weights.test_exporting import FIXTURES, TEXTS
from tests.peers.of import ROOT, python_of

FUSED = ('qkv', 'gate_up', 'out', 'down')
LAYER = 'base_model.model.model.layers.{}.'


@cache
def learned(config, *edits):
  """An adapted tree as it might be after training: no B is 0, no magnitude its column's length."""
  params = made(config)[1]
  for edit in edits:
    params = edit(params, jax.random.key(1))
  random = np.random.default_rng(2)

  def draw(w):
    if not isinstance(w, LowRank):
      return w
    b = {part: jnp.asarray(random.normal(size=x.shape), jnp.float32) for part, x in w.b.items()}
    longer = w.magnitudes and {part: x * jnp.asarray(random.uniform(0.5, 2, x.shape), jnp.float32)
                               for part, x in w.magnitudes.items()}
    return replace(w, b=b, magnitudes=longer)

  return jax.tree.map(draw, params, is_leaf=lambda w: isinstance(w, LowRank))


def logits(config, params):
  model = made(config)[0]
  return np.asarray(jax.jit(lambda params: model.logits(params, model.hidden(params, tokens()).x_BLD))(params))


def identical(one, other):
  assert jax.tree.structure(one) == jax.tree.structure(other)
  jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize('edits', [
  (LoRA(3, 16.0),), (LoRA(5, 7.0, ('q', 'v', 'down'), 'sqrt', 0.1),), (LoRA(3, 16.0), DoRA()), (LoRA(1, 0.3, ('up', 'k')),)])
@pytest.mark.parametrize('config', [small(), small(attention=Attention(4, 1, 8, qkv_bias=True), tied=False),
                                    small(attention=Attention(4, 2, 8, qk_norm=AllHeads()), placement='output')])
def test_adapters_are_read_as_they_were_written(config, edits, tmp_path):
  params = learned(config, *edits)
  write_peft(tmp_path / 'a', config, params, 'base', edits[0].scaling)
  identical(read_peft(tmp_path / 'a', config, made(config)[1]), params)


@pytest.mark.parametrize('name', ['phi3', 'gpt_neox'])
def test_a_published_matrix_that_is_fused_too_has_one_adapter(name, tmp_path):
  config = open_published(FIXTURES / name).config
  params = learned(config, LoRA(3, targets=('qkv', 'up', 'down') if name == 'gpt_neox' else FUSED))
  write_peft(tmp_path / 'a', config, params)
  identical(read_peft(tmp_path / 'a', config, made(config)[1]), params)
  with pytest.raises(UserError, match='fused'):
    write_peft(tmp_path / 'b', config, learned(config, LoRA(3, targets=('q',))))


@pytest.mark.parametrize('more', [(), (DoRA(),)])
def test_an_adapter_over_a_fused_matrix_is_one_for_each_part(more, tmp_path):
  config, edits = small(), (LoRA(3, targets=FUSED), *more)
  write_peft(tmp_path / 'a', config, learned(config, *edits))
  back = read_peft(tmp_path / 'a', config, made(config)[1])
  np.testing.assert_array_equal(logits(config, back), logits(config, learned(config, *edits)))
  tensors = open_safetensors(tmp_path / 'a' / 'adapter_model.safetensors')
  q, v = (tensors[f'{LAYER.format(1)}self_attn.{part}_proj.lora_A.weight'].whole() for part in 'qv')
  np.testing.assert_array_equal(q, v)


def test_what_is_written_is_the_difference_of_each_published_matrix(tmp_path):
  """Known answer: W' - W = (alpha / r) B A, matrix by matrix, of the merged model and the plain one as folders hold them."""
  config = small()
  edit = LoRA(3, 16.0)
  write_peft(tmp_path / 'a', config, learned(config, edit), 'someone/base')
  said = json.loads((tmp_path / 'a' / 'adapter_config.json').read_text())
  assert (said['r'], said['lora_alpha'], said['base_model_name_or_path']) == (3, 16, 'someone/base')
  assert said['target_modules'] == sorted(f'{each}_proj' for each in ('q', 'k', 'v', 'o', 'gate', 'up', 'down'))
  found = open_safetensors(tmp_path / 'a' / 'adapter_model.safetensors')
  assert len(found) == 2 * 7 * config.layers
  rules = family_for(config)[0].rules(config)
  plain, merged = ({each.name: each for each in published(config, rules, params, np.dtype(np.float32))}
                   for params in (made(config)[1], merge(learned(config, edit))))
  for name in plain:
    a = found.get(f'base_model.model.{name.removesuffix(".weight")}.lora_A.weight')
    change = merged[name].whole() - plain[name].whole()
    if a is None:
      assert not change.any() and '_proj' not in name
      continue
    b = found[a.name.replace('lora_A', 'lora_B')].whole()
    np.testing.assert_allclose(16 / 3 * b @ a.whole(), change, atol=1e-4)
    assert np.abs(change).max() > 0.1


def test_adapters_over_few_bits_are_given_as_over_many(tmp_path):
  config = small()
  params = learned(config, Quantize('int8'), LoRA(3))
  write_peft(tmp_path / 'a', config, params)
  identical(adapters(read_peft(tmp_path / 'a', config, made(config)[1])), adapters(params))


@pytest.mark.parametrize('changes, said', [
  ({'lora_bias': True}, 'lora_bias'), ({'modules_to_save': ['lm_head']}, 'modules_to_save'),
  ({'rank_pattern': {'q_proj': 4}}, 'rank_pattern'), ({'alpha_pattern': {'q_proj': 4}}, 'alpha_pattern'),
  ({'layers_to_transform': [0]}, 'layers_to_transform'), ({'bias': 'all'}, 'bias'), ({'peft_type': 'IA3'}, 'IA3'),
  ({'init_lora_weights': 'pissa'}, 'pissa'), ({'fan_in_fan_out': True}, 'fan_in_fan_out'), ({'new_in_2030': 1}, 'new_in_2030'),
  ({'target_modules': 'all-linear'}, 'target_modules'), ({'target_modules': ['q_proj', 'embed_tokens']}, 'embed_tokens'),
  ({'target_modules': ['q_proj']}, 'adapt nothing'), ({'r': 4}, r'\[3, \d+\]'), ({'r': None}, 'r = None'), ({'r': 0}, 'r = 0'),
  ({'lora_alpha': '16'}, 'lora_alpha'), ({'use_dora': True}, 'magnitude')])
def test_what_is_not_known_is_refused_by_name(changes, said, tmp_path):
  config = small()
  write_peft(tmp_path / 'a', config, learned(config, LoRA(3)))
  path = tmp_path / 'a' / 'adapter_config.json'
  path.write_text(json.dumps(json.loads(path.read_text()) | changes))
  with pytest.raises(UserError, match=said) as error:
    read_peft(tmp_path / 'a', config, made(config)[1])
  assert str(tmp_path / 'a') in error.value.what


def test_tensors_that_do_not_fit_are_refused_by_name(tmp_path):
  config, name = small(), f'{LAYER.format(1)}mlp.up_proj.lora_B.weight'
  write_peft(tmp_path / 'a', config, learned(config, LoRA(3)))
  path = tmp_path / 'a' / 'adapter_model.safetensors'
  held = open_safetensors(path)
  zeros = held[name].whole() * 0
  for changed in ({name: None}, {name: zeros[:, :2]}, {name: zeros + np.inf}, {f'{name}.more': zeros}):
    arrays = {each: tensor.whole() for each, tensor in held.items()} | changed
    write_safetensors(path, [held[name]._replace(name=each, read=lambda _, x=x: x) for each, x in arrays.items()
                             if x is not None])
    with pytest.raises(UserError, match=r'up_proj\.lora_B'):
      read_peft(tmp_path / 'a', config, made(config)[1])
  with pytest.raises(UserError, match='no such f'):
    read_peft(tmp_path / 'b', config, made(config)[1])
  with pytest.raises(UserError, match=r'lora_A|lora_B'):
    write_peft(tmp_path / 'c', config, learned(config, LoRA(3)))
    read_peft(tmp_path / 'c', small(width=24), made(small(width=24))[1])


def test_what_peft_has_no_words_for_is_not_written(tmp_path):
  config = small()
  two = learned(config, LoRA(3, targets=('q',)), LoRA(4, targets=('down',)))
  for params, said in ((made(config)[1], 'none'), (two, 'differ')):
    with pytest.raises(UserError, match=said):
      write_peft(tmp_path / 'a', config, params)
  routed = small(mlp=MoE(4, 2, Gated(24), balance=0.001, router_z=0.0))
  with pytest.raises(UserError, match='family'):
    write_peft(tmp_path / 'a', routed, learned(routed, LoRA(3, targets=('q',))))
  assert not list(tmp_path.iterdir())


def asked(folder):
  """What the peers say. Raises: AssertionError with their words."""
  run = subprocess.run([python_of('trl'), '-W', 'ignore', '-m', 'tests.peers.exported', folder], cwd=ROOT, text=True,
                       capture_output=True, timeout=300, env={'HF_HUB_OFFLINE': '1', 'PATH': '/usr/bin:/bin'})
  assert run.returncode == 0, run.stderr[-4000:]
  return json.loads(run.stdout)


@pytest.mark.parametrize('more', [pytest.param((), marks=pytest.mark.campaign), (DoRA(),)])
def test_peers_compute_what_we_do(more, tmp_path):
  """A learnt tokenizer, a template, a Llama as a folder and as GGUF, and adapters over it: ids, conversations and logits."""
  (tmp_path / 'tokenizer.model').write_bytes(train_bpe(TEXTS, 470))
  learnt, template = SentencePiece(tmp_path / 'tokenizer.model'), ChatML('Be "kind".')
  config = small(vocab=480, width=32, tied=False)
  params, adapted = made(config)[1], learned(config, LoRA(3, 2.0, scaling='sqrt'), *more)
  export(tmp_path / 'model', config, params, learnt, template)
  export_gguf(tmp_path / 'model.gguf', config, params, learnt, template, 'F32')
  write_peft(tmp_path / 'adapters', config, adapted, str(tmp_path / 'model'), 'sqrt')
  for name, tree in (('expected', params), ('adapted', adapted)):
    np.savez(tmp_path / f'{name}.npz', tokens=np.asarray(tokens()), logits=logits(config, tree))
  talks = [[('user', ' a ')], [('system', 's'), ('user', 'a'), ('assistant', 'b\n'), ('user', 'c')]]
  texts = [text for text in (*HARD, *TEXTS, f'{SPACE}a ') if text and not any(name in text for name in CONTROLS)]
  (tmp_path / 'said.json').write_text(json.dumps({
    'ids': {text: learnt.encode(text) for text in texts}, 'answers': {}, 'talks':
    [[[talk, True], prompt(template, learnt, [Message(*each) for each in talk])] for talk in talks]
    + [[[talk, False], render(template, learnt, [Message(*each) for each in talk]).ids.tolist()] for talk in talks]}))
  found = asked(tmp_path)
  assert found['texts'] == len(texts) and found['talks'] == 4 and found['gguf tensors'] == 21
  for name in ('expected', 'adapted', 'gguf'):
    assert found[next(key for key in found if key.startswith(f'{name}: '))] < 1e-4
