"""Published families: the same logits as their makers' code, and the same bits when they are written again.

The fixtures are of transformers (`tests.peers.published`): tiny models with every switch of their family on. Of encoders
without a head what is compared is what the last block gives.
"""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding

from model.config import Attention, Decoder, Gated, NoPositions, RMSNorm, Transformed, Window
from model.decoder import build
from model.errors import ConfigError, DataError
from model.generate import generate
from model.sampling import Sampling
from model.sharding import MeshShape, shardings
from model.weights import loading
from model.weights.families import FAMILIES, family_for, family_of
from model.weights.layout import Heads, PerHead
from model.weights.opening import open_published
from model.weights.said import Said
from model.weights.tensor import Tensor
from tests.model.variants import VARIANTS

FIXTURES = Path(__file__).parent / 'fixtures'
NAMES = sorted(path.name for path in FIXTURES.iterdir())
ENCODERS = ['bert', 'minilm', 'modernbert', 'modernbert_bare', 'modernbert_biased', 'roberta']
DECODERS = [name for name in NAMES if name not in ENCODERS]


@cache
def opened(name: str):
  """(what lies there, parameters on the first device, the model, tokens i32[2, 24], their logits by transformers)."""
  found = open_published(FIXTURES / name)
  places = jax.tree.map(lambda _: SingleDeviceSharding(jax.devices()[0]), loading.abstract(found.config))
  expected = np.load(FIXTURES / name / 'expected.npz')
  params = loading.load(found.config, found.rules, found.tensors, places)
  return found, params, build(found.config), expected['tokens'], expected['logits']


def logits(model, params, tokens_BL, segments_BL=None, types_BL=None):
  """The logits; of a model without a head of its own what would go into it."""
  bare = not model.config.causal and model.config.head is None

  @jax.jit
  def made(params, tokens_BL, segments_BL, types_BL):
    x_BLD = model.hidden(params, tokens_BL, segments_BL, types_BL=types_BL).x_BLD
    return x_BLD if bare else model.logits(params, x_BLD)

  return np.asarray(made(params, tokens_BL, segments_BL, types_BL))


@pytest.mark.parametrize('name', NAMES)
def test_the_logits_are_those_of_its_makers(name):
  _, params, model, tokens, expected = opened(name)
  found = logits(model, params, tokens)
  np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)
  assert (found.argmax(-1) == expected.argmax(-1)).all()


@pytest.mark.parametrize('name', NAMES)
def test_what_is_read_and_written_is_the_same_to_the_bit(name):
  found, params, *_ = opened(name)
  written = {each.name: each for each in loading.published(found.config, found.rules, params, np.dtype(np.float32))}
  assert written.keys() == {name for name in found.tensors if not (found.config.tied and name == 'lm_head.weight')
                            and not name.startswith('pooler.')}
  for each, tensor in written.items():
    np.testing.assert_array_equal(tensor.whole(), found.tensors[each].whole())
    if tensor.shape[0] > 2:
      np.testing.assert_array_equal(tensor.read((slice(1, 3),)), found.tensors[each].whole()[1:3])


@pytest.mark.parametrize('name', NAMES)
def test_a_config_that_is_written_means_the_same_model(name):
  config = opened(name)[0].config
  family, fields = family_for(config)
  assert family_of(Said('written', json.loads(json.dumps(fields)))) == family and family.read(Said('written', fields)) == config


@pytest.mark.parametrize('name', ['bert', 'minilm'])
def test_types_of_tokens_are_those_of_its_makers(name):
  found, params, model, tokens, expected = opened(name)
  said = np.load(FIXTURES / name / 'expected.npz')
  typed = logits(model, params, tokens, types_BL=said['types'])
  np.testing.assert_allclose(typed, said['typed'], atol=1e-4, rtol=0)
  assert not found.config.causal and np.abs(typed - expected).max() > 0.1


@pytest.mark.parametrize('name', ENCODERS)
def test_packed_and_padded_texts_of_encoders_are_as_each_alone(name):
  _, params, model, tokens, expected = opened(name)
  packed = logits(model, params, tokens.reshape(1, -1), jnp.repeat(jnp.array([[1, 2]]), tokens.shape[1], 1))
  np.testing.assert_allclose(packed.reshape(expected.shape), expected, atol=2e-4, rtol=0)
  padded = logits(model, params, np.pad(tokens, ((0, 0), (0, 5))), jnp.pad(jnp.ones_like(tokens), ((0, 0), (0, 5))))
  np.testing.assert_allclose(padded[:, :-5], expected, atol=2e-4, rtol=0)


def test_what_encoders_have_no_use_for_is_left_out_and_old_names_are_read():
  """The pooler, buffers, another task's head; `bert.` may be there or not, and norms may have a gamma and a beta."""
  found, bare = opened('bert')[0], opened('minilm')[0]
  old = {name.replace('LayerNorm.weight', 'LayerNorm.gamma').replace('LayerNorm.bias', 'LayerNorm.beta'): tensor
         for name, tensor in found.tensors.items()}
  one = next(iter(old.values()))
  more = dict.fromkeys(('bert.pooler.dense.weight', 'bert.embeddings.position_ids', 'cls.predictions.decoder.weight',
                        'cls.predictions.decoder.bias', 'cls.seq_relationship.bias'), one)
  kept = loading.check(found.config, found.rules, old | more)
  assert old.keys() != found.tensors.keys() == kept.keys() - more.keys()
  assert all(kept[name] is tensor for name, tensor in found.tensors.items())
  assert 'pooler.dense.weight' in bare.tensors
  body = loading.check(bare.config, bare.rules, found.tensors)
  assert all(body[name] is found.tensors[f'bert.{name}'] for name in loading.wanted(bare.config, bare.rules))
  with pytest.raises(DataError, match='classifier'):
    loading.check(bare.config, bare.rules, {**bare.tensors, 'classifier.weight': one})
  with pytest.raises(DataError, match=r'missing cls\.predictions\.bias'):
    loading.check(found.config, found.rules, bare.tensors)


def test_modernbert_with_a_head_may_be_read_without_and_with_one_written_twice():
  """Layer 0 has no norm of its attention; a head's parts are left out where the model has none, and named where they lack."""
  found, bare = opened('modernbert')[0], opened('modernbert_bare')[0]
  assert not any(name.startswith('model.layers.0.attn_norm') for name in found.tensors)
  assert 'model.layers.1.attn_norm.weight' in found.tensors and 'layers.1.attn_norm.weight' in bare.tensors
  twice = {**found.tensors, 'decoder.weight': found.tensors['model.embeddings.tok_embeddings.weight']}
  assert loading.check(found.config, found.rules, twice).keys() == twice.keys()
  headless = replace(found.config, head=None)
  body = loading.check(headless, bare.family.rules(headless), twice)
  assert all(body[name] is found.tensors[f'model.{name}'] for name in loading.wanted(headless, bare.family.rules(headless)))
  biased = replace(found.config, head=Transformed('gelu', dense_bias=True))
  with pytest.raises(DataError, match=r'missing head\.dense\.bias'):
    loading.check(biased, found.family.rules(biased), found.tensors)
  more = {**found.tensors, 'head.dense.bias': found.tensors['decoder.bias']}
  with pytest.raises(DataError, match=r'unknown head\.dense\.bias'):
    loading.check(found.config, found.rules, more)


def test_modernbert_as_transformers_4_wrote_it():
  """Every third layer is global and the bases have names of their own; a window of 128 is 64 tokens to each side."""
  fields = json.loads((FIXTURES / 'modernbert' / 'config.json').read_text())
  old = {name: value for name, value in fields.items() if name not in ('layer_types', 'rope_parameters', 'local_attention')}
  said = Said('config.json', old | {'global_rope_theta': 5e4, 'local_rope_theta': 2e4})
  config = family_of(said).read(said)
  assert config.attention.window == Window(65, ('global', 'local', 'local'))
  assert (config.positions.theta, config.positions.local_theta) == (5e4, 2e4)
  one = Said('config.json', old | {'global_rope_theta': 5e4, 'local_rope_theta': None})
  assert family_of(one).read(one).positions.local_theta == 5e4


@pytest.mark.parametrize('name', DECODERS)
def test_packed_and_cached_as_the_whole(name):
  """Two documents in a row are as each alone, beyond every window; and greedy decoding chooses what the whole row would."""
  _, params, model, tokens, expected = opened(name)
  segments = jnp.repeat(jnp.array([[1, 2]]), tokens.shape[1], 1)
  packed = logits(model, params, tokens.reshape(1, -1), segments)
  np.testing.assert_allclose(packed.reshape(expected.shape), expected, atol=2e-4, rtol=0)
  said = generate(model, params, [tokens[0, :9].tolist()], max_new=8, sampling=Sampling(0.0), key=jax.random.key(0)).tokens[0]
  whole = logits(model, params, np.concatenate([tokens[0, :9], said])[None])[0]
  assert said.tolist() == whole[8:-1].argmax(-1).tolist()


def test_a_shard_holds_what_the_whole_holds_there():
  found, params, model, *_ = opened('llama')
  grid = MeshShape(data=1, fsdp=4, tensor=2).build()
  with jax.set_mesh(grid):
    places = shardings(jax.eval_shape(model.init, jax.random.key(0)), grid)
    cut = loading.load(found.config, found.rules, found.tensors, places)
  jax.tree.map(lambda one, other: np.testing.assert_array_equal(np.asarray(one), np.asarray(other)), cut, params)
  assert any(leaf.sharding.shard_shape(leaf.shape) != leaf.shape for leaf in jax.tree.leaves(cut))


def test_heads_that_lie_side_by_side():
  """q, k, v of head 0, then of head 1: GPT-NeoX."""
  heads = Heads(Attention(2, 2, 1))
  theirs = np.arange(6.0)[:, None]
  ours = PerHead(heads).ours([theirs])
  assert ours[0].squeeze(-1).tolist() == [[0, 1, 2], [3, 4, 5]]
  np.testing.assert_array_equal(PerHead(heads).theirs(ours)[0], theirs)


def altered(found, change):
  """The tensors of a model after `change` of a dict of them."""
  tensors = dict(found.tensors)
  change(tensors)
  return tensors


def drop(tensors):
  del tensors['model.layers.1.mlp.up_proj.weight']


def add(tensors):
  tensors['model.layers.2.mlp.up_proj.weight'] = tensors['model.layers.1.mlp.up_proj.weight']


def cut(tensors):
  name = 'model.norm.weight'
  tensors[name] = tensors[name]._replace(shape=(31,))


def count(tensors):
  name = 'model.norm.weight'
  tensors[name] = tensors[name]._replace(dtype=np.dtype(np.int32))


@pytest.mark.parametrize('change, id, said', [
  (drop, 'weights.names', 'layers.1.mlp.up_proj'), (add, 'weights.names', 'layers.2.mlp.up_proj'),
  (cut, 'weights.shape', r'\[31\]'), (count, 'weights.type', 'int32')])
def test_tensors_of_another_model_are_named(change, id, said):
  found = opened('llama')[0]
  with pytest.raises(DataError, match=said) as caught:
    loading.check(found.config, found.rules, altered(found, change))
  assert caught.value.id == id


def test_numbers_that_are_not_finite_are_refused():
  found, params, *_ = opened('llama')
  name = 'model.layers.0.mlp.down_proj.weight'
  bad = found.tensors[name].whole()
  bad[3, 4] = np.nan
  tensors = altered(found, lambda each: each.update({name: Tensor(name, bad.shape, bad.dtype, lambda slices: bad[slices])}))
  with pytest.raises(DataError, match='down_proj') as caught:
    loading.load(found.config, found.rules, tensors, jax.tree.map(lambda leaf: leaf.sharding, params))
  assert caught.value.id == 'weights.not-finite'


@pytest.mark.parametrize('name, change, said', [
  ('llama', {'architectures': ['FalconForCausalLM'], 'model_type': 'falcon'}, 'Falcon'),
  ('llama', {'rope_parameters': {'rope_type': 'longrope', 'factor': 2.0}}, 'longrope'),
  ('llama', {'rope_scaling': {'type': 'dynamic', 'factor': 2.0}, 'rope_parameters': None}, 'dynamic'),
  ('llama', {'hidden_act': 'mish'}, 'mish'), ('llama', {'hidden_size': 'wide'}, "hidden_size = 'wide'"),
  ('llama', {'vocab_size': None}, 'vocab_size'), ('mistral', {'attention_bias': True}, 'attention_bias'),
  ('qwen2', {'layer_types': ['linear_attention'] * 4}, 'linear_attention'),
  ('qwen2', {'layer_types': ['full_attention']}, 'layer_types'), ('qwen3_moe', {'decoder_sparse_step': 2}, 'sparse_step'),
  ('gpt2', {'scale_attn_by_inverse_layer_idx': True}, 'inverse_layer'), ('olmoe', {'clip_qkv': 8.0}, 'clip_qkv'),
  ('bert', {'position_embedding_type': 'relative_key'}, 'relative_key'), ('roberta', {'is_decoder': True}, 'is_decoder'),
  ('modernbert', {'tie_word_embeddings': False}, 'tie_word'), ('modernbert', {'sliding_window': 128}, 'sliding_window'),
  ('modernbert', {'rope_scaling': {'type': 'yarn'}}, 'rope_scaling'), ('modernbert', {'classifier_activation': 'mish'}, 'mish'),
  ('modernbert', {'layer_types': ['chunked_attention'] * 5}, 'chunked'), ('modernbert', {'norm_bias': 'no'}, 'norm_bias'),
  ('smollm3', {'no_rope_layers': [1, 0]}, 'no_rope_layers'), ('gpt_neox', {'hidden_act': 'gelu_fancy'}, 'gelu_fancy')])
def test_a_switch_that_is_not_known_is_named(name, change, said):
  fields = json.loads((FIXTURES / name / 'config.json').read_text()) | change
  with pytest.raises(DataError, match=said):
    told = Said('config.json', fields)
    family_of(told).read(told)


@pytest.mark.parametrize('name', ['qwen2', 'qwen3'])
@pytest.mark.parametrize('change, window', [
  ({'max_window_layers': 2}, Window(6, ('global', 'global', 'local', 'local'))), ({'max_window_layers': 4}, None), ({}, None),
  ({'max_window_layers': 0}, Window(6, ('local',))), ({'max_window_layers': 0, 'use_sliding_window': False}, None)])
def test_the_windows_of_a_qwen_begin_at_a_layer_where_no_list_says_which(name, change, window):
  """As transformers 5.23 has it: from `max_window_layers` on, which is 28 by default."""
  fields = json.loads((FIXTURES / name / 'config.json').read_text())
  told = Said('config.json', fields | {'layer_types': None, 'num_hidden_layers': 4, 'use_sliding_window': True,
                                       'sliding_window': 6, 'max_window_layers': None} | change)
  assert family_of(told).read(told).attention.window == window


def test_a_model_that_no_family_can_say_is_refused():
  strange = Decoder(64, 32, 2, Attention(4, 2, 8), Gated(24), RMSNorm(), positions=NoPositions(), embedding_scale=3.0)
  with pytest.raises(ConfigError, match='LlamaForCausalLM') as caught:
    family_for(strange)
  assert caught.value.id == 'weights.no-family'
  assert family_for(replace(VARIANTS['llama'], param_dtype='bfloat16'))[0].architecture == 'LlamaForCausalLM'
  assert len({family.architecture for family in FAMILIES}) == len(FAMILIES)
