"""Small decoders that between them turn every switch, and what the tests of this room do with them."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from model.config import (
  AllHeads,
  Attention,
  Compute,
  Decoder,
  Gated,
  LayerNorm,
  Learned,
  Linear,
  Llama3,
  MoE,
  MuP,
  NoPositions,
  Normed,
  Plain,
  RMSNorm,
  Rotary,
  Transformed,
  Typed,
  Window,
  YaRN,
)
from model.decoder import Model, build
from model.sharding import unbox

HEADS = Attention(heads=4, kv_heads=2, head_size=8)


def small(**changes) -> Decoder:
  """Llama's form: D=16, N=2, V=64."""
  fields = {'vocab': 64, 'width': 16, 'layers': 2, 'attention': HEADS, 'mlp': Gated(24)}
  return Decoder(**(fields | changes))


VARIANTS: dict[str, Decoder] = {
  'llama': small(),
  'llama3': small(positions=Rotary(5e5, scaling=Llama3(8.0, original=16)), tied=False, mup=MuP(8, base_head_size=4)),
  'gpt2': small(attention=Attention(2, 2, 8, qkv_bias=True, out_bias=True), mlp=Plain(32, bias=True), norm=LayerNorm(),
                positions=Learned(32)),
  'gemma2': small(attention=Attention(4, 2, 8, softcap=5.0, scale=0.3, window=Window(4, ('local', 'global'))), layers=3,
                  mlp=Gated(24, 'gelu_tanh'), norm=RMSNorm(1e-6, offset=1.0), placement='sandwich', embedding_scale=4.0,
                  softcap=3.0),
  'gemma3': small(attention=Attention(4, 1, 8, qk_norm=RMSNorm(), window=Window(3, ('local', 'local', 'global'))),
                  layers=4, positions=Rotary(1e6, local_theta=1e4, scaling=Linear(8.0))),
  'qwen': small(attention=Attention(4, 2, 8, qkv_bias=True, qk_norm=RMSNorm()),
                positions=Rotary(scaling=YaRN(4.0, original=8), fraction=0.5)),
  'mixtral': small(mlp=MoE(4, 2, Gated(24)), attention=Attention(4, 2, 8, window=Window(5))),
  'olmoe': small(mlp=MoE(4, 2, Plain(24, 'relu2'), renormalise=False), placement='output', positions=NoPositions()),
  'olmo2': small(attention=Attention(4, 2, 8, qk_norm=AllHeads()), placement='output'),
  'smollm3': small(layers=3, positions=Rotary(pattern=('turned', 'still'))),
  'neox': small(attention=Attention(2, 2, 8, qkv_bias=True, out_bias=True), mlp=Plain(32, 'gelu', bias=True), norm=LayerNorm(),
                placement='parallel', positions=Rotary(fraction=0.25), tied=False),
  'bare_first': small(layers=4, placement='pre_but_first', embedding=Normed(), positions=Rotary(local_theta=500.0),
                      attention=Attention(4, 2, 8, window=Window(4, ('global', 'local')))),
  'post': small(placement='post', norm=LayerNorm(bias=False), mlp=Plain(32, 'gelu')),
  'bfloat16': small(compute_dtype='bfloat16', stream_dtype='bfloat16'),
}

# they read both ways, so the laws of decoding are not theirs
ENCODERS: dict[str, Decoder] = {
  'bert': small(attention=Attention(2, 2, 8, qkv_bias=True, out_bias=True), mlp=Plain(32, 'gelu', bias=True),
                norm=LayerNorm(1e-12), placement='post', positions=Learned(32), causal=False, embedding=Typed(),
                head=Transformed()),
  'roberta': small(norm=LayerNorm(bias=False), placement='post', positions=Learned(34, first=2), causal=False, tied=False,
                   embedding=Typed(1), head=Transformed('relu'), softcap=4.0),
  'modernbert': small(layers=4, norm=LayerNorm(bias=False), mlp=Gated(24, 'gelu'), placement='pre_but_first', causal=False,
                      attention=Attention(2, 2, 8, window=Window(4, ('global', 'local', 'local'))), embedding=Normed(),
                      positions=Rotary(1.6e5, local_theta=1e4), head=Transformed(dense_bias=False)),
}

EXACT = {name: config for name, config in VARIANTS.items() if name != 'bfloat16'}


@cache
def made(config: Decoder, compute: Compute = Compute()) -> tuple[Model, dict]:
  """The model, and parameters as they might be after training: no bias is 0, no norm is 1, every token has its say."""
  model = build(config, compute)
  abstract = unbox(jax.eval_shape(model.init, jax.random.key(0)))
  random = np.random.default_rng(0)

  def draw(path, leaf):
    noise = random.normal(size=leaf.shape).astype(np.float32)
    return jnp.asarray(1 + 0.1 * noise if path[-1].key == 'scale' else 0.3 * noise)

  return model, jax.tree_util.tree_map_with_path(draw, abstract)


@cache
def _forward(config: Decoder, compute: Compute):
  model, _ = made(config, compute)
  return jax.jit(lambda params, tokens_BL, segments_BL: model.logits(
    params, model.hidden(params, tokens_BL, segments_BL).x_BLD))


def logits(config: Decoder, tokens_BL, segments_BL=None, compute: Compute = Compute()) -> np.ndarray:
  """f32[B, L, V] of those parameters."""
  _, params = made(config)
  return np.asarray(_forward(config, compute)(params, tokens_BL, segments_BL), np.float32)


def tokens(batch: int = 2, length: int = 12, seed: int = 1) -> jax.Array:
  """i32[batch, length] below 64."""
  return jax.random.randint(jax.random.key(seed), (batch, length), 0, 64)
