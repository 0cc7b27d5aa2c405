"""Known sizes, and arithmetic against the tree that is really made."""

import math
from dataclasses import replace

import jax
import pytest

from model.config import Attention, Gated, LayerNorm, Learned, MoE, Plain, Typed, Window
from model.count import active_parameters, flops_per_token, mean_keys, parameters
from model.decoder import build
from model.errors import ConfigError
from model.sizes import SIZES, heads, llama, named
from tests.model.variants import ENCODERS, VARIANTS, small

PUBLISHED = {'gpt2_124m': 124_439_808, 'gpt2_350m': 354_823_168, 'gpt2_774m': 774_030_080, 'gpt2_1.5b': 1_557_611_200,
             'smollm2_135m': 134_515_008, 'llama_1b': 1_235_814_400, 'llama_3b': 3_212_749_824, 'llama_8b': 8_030_261_248,
             'llama_70b': 70_553_706_496}


@pytest.mark.parametrize('name', PUBLISHED)
def test_named_sizes_have_as_many_parameters_as_published(name):
  assert parameters(named(name)) == PUBLISHED[name]


def test_encoders_have_as_many_parameters_as_published():
  """BERT base and RoBERTa base with their heads; MiniLM, less the 147,840 of its pooler."""
  def encoder(vocab, width, layers, **changes):
    heads = Attention(12, 12, width // 12, qkv_bias=True, out_bias=True)
    return replace(ENCODERS['bert'], vocab=vocab, width=width, layers=layers, attention=heads, norm=LayerNorm(1e-12),
                   mlp=Plain(4 * width, 'gelu', bias=True), **changes)

  assert parameters(encoder(30_522, 768, 12, positions=Learned(512))) == 109_514_298
  assert parameters(encoder(50_265, 768, 12, positions=Learned(514, first=2), embedding=Typed(1))) == 124_697_433
  assert parameters(encoder(30_522, 384, 6, positions=Learned(512), head=None)) == 22_713_216 - 147_840


def test_published_sizes_of_modernbert():
  """Base and large, as transformers counts them."""
  def modernbert(width, layers, count, hidden):
    return replace(ENCODERS['modernbert'], vocab=50_368, width=width, layers=layers, mlp=Gated(hidden, 'gelu'),
                   attention=Attention(count, count, 64, window=Window(65, ('global', 'local', 'local'))))

  assert parameters(modernbert(768, 22, 12, 1152)) == 149_655_232
  assert parameters(modernbert(1024, 28, 16, 2624)) == 395_881_664


@pytest.mark.parametrize('name', [*VARIANTS, *ENCODERS, *SIZES])
def test_arithmetic_agrees_with_the_tree(name):
  config = {**VARIANTS, **ENCODERS, **SIZES}[name]
  tree = jax.eval_shape(build(config).init, jax.random.key(0))
  assert parameters(config) == sum(math.prod(x.shape) for x in jax.tree.leaves(tree))


def test_flops_of_a_token():
  """6N + 6 L S d, N without the input embedding."""
  config = llama(1_000, 64, 3, 4, hidden=96)
  matrices = 3 * (64 * 3 * 64 + 64 * 64 + 3 * 64 * 96) + 1_000 * 64
  norms = (2 * 3 + 1) * 64
  assert active_parameters(config) == matrices + norms
  assert flops_per_token(config, 512) == 6 * (matrices + norms) + 6 * 3 * 512 * 64


def test_windows_both_sides_and_experts_in_the_count():
  local = small(attention=Attention(4, 2, 8, window=Window(8, ('local', 'global'))))
  seen = [sum(max(0, i - 7) <= j <= i for i in range(64) for j in range(64)) / 64]
  assert mean_keys(local, 64, local=True) == pytest.approx(seen[0], rel=0.07)
  assert mean_keys(local, 64, local=False) == 32
  assert mean_keys(small(causal=False), 64, local=False) == 64
  assert mean_keys(local, 4, local=True) == mean_keys(local, 4, local=False) == 2
  sparse, full = small(mlp=MoE(8, 2, Gated(24))), small(mlp=MoE(8, 8, Gated(24)))
  assert parameters(sparse) == parameters(full) == active_parameters(full)
  assert active_parameters(full) - active_parameters(sparse) == 2 * 6 * 3 * 16 * 24


def test_heads_that_do_not_share_the_width_are_refused_with_the_nearest_that_do():
  with pytest.raises(ConfigError) as error:
    heads(768, 10)
  assert 'use 8 or 12 heads, or a width of 770' in str(error.value)
  with pytest.raises(ConfigError) as error:
    Attention(12, 5, 64)
  assert 'use one of 1, 2, 3, 4, 6, 12' in str(error.value)


def test_an_unknown_size_is_answered_with_the_known_ones():
  with pytest.raises(ConfigError, match='gpt2_124m, gpt2_350m'):
    named('gpt2')
