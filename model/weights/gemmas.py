"""The config.json of Gemma 1, 2 and 3: as a `Decoder`, and from one."""

from dataclasses import replace

from model.config import Decoder, Gated, RMSNorm, Rotary
from model.weights.llamas import llama, write_llama
from model.weights.positions import rotary, told, window
from model.weights.said import Fields, Said, only


def gemma(said: Said) -> Decoder:
  """Llama whose norms are stored less one, whose embeddings are scaled, and whose head is tied."""
  said.must('mlp_bias', False)
  config = llama(said.or_else(tie_word_embeddings=True, head_dim=256))
  mlp = replace(only(config.mlp, Gated), activation='gelu_tanh')            # what `hidden_act` says is not what was trained
  norm = replace(only(config.norm, RMSNorm), offset=1.0)
  return replace(config, mlp=mlp, norm=norm, embedding_scale=config.width ** 0.5)


def gemma2(said: Said) -> Decoder:
  """Gemma with norms on both sides, soft caps, and a window in every other layer."""
  config, layers = gemma(said), said.count('num_hidden_layers')
  kinds = tuple('full_attention' if i % 2 else 'sliding_attention' for i in range(layers))
  attention = replace(config.attention, scale=said.get('query_pre_attn_scalar', float, 256.0) ** -0.5,
                      softcap=capped(said, 'attn_logit_softcapping'), window=window(said, kinds))
  return replace(config, attention=attention, placement='sandwich', softcap=capped(said, 'final_logit_softcapping'))


def capped(said: Said, field: str) -> float | None:
  return said.get(field, float) if said.has(field) else None


def write_gemma2(config: Decoder) -> Fields:
  heads = config.attention
  scalar = round((heads.scale or heads.head_size ** -0.5) ** -2)           # a whole number, or transformers refuses it
  return write_llama(config) | {
    'hidden_activation': 'gelu_pytorch_tanh', 'query_pre_attn_scalar': scalar,
    'attn_logit_softcapping': heads.softcap, 'final_logit_softcapping': config.softcap}


def gemma3(said: Said) -> Decoder:
  """Gemma 2 with norms on q and k for caps, a global layer in six, and a rotary base of their own for the local ones."""
  layers, every = said.count('num_hidden_layers'), said.count('sliding_window_pattern', 6)
  kinds = tuple('sliding_attention' if (i + 1) % every else 'full_attention' for i in range(layers))
  config = gemma2(said.or_else(layer_types=list(kinds), rms_norm_eps=1e-6))
  whole = said.part('rope_parameters')
  if whole.has('full_attention'):
    wide, near = whole.part('full_attention'), whole.part('sliding_attention')
    near.must('rope_type', 'default')
    positions = rotary(Said(said.where, {'rope_parameters': wide.fields}))
    local = near.get('rope_theta', float)
  else:
    positions = rotary(said.or_else(rope_theta=1e6))
    local = said.get('rope_local_base_freq', float, 10_000.0)
  attention = replace(config.attention, qk_norm=only(config.norm, RMSNorm))
  return replace(config, attention=attention, positions=replace(positions, local_theta=local))


def write_gemma3(config: Decoder) -> Fields:
  positions = only(config.positions, Rotary)
  local = positions.local_theta or positions.theta
  return write_gemma2(config) | {'rope_local_base_freq': local, 'rope_parameters': {
    'full_attention': told(replace(positions, local_theta=None)),
    'sliding_attention': {'rope_theta': local, 'rope_type': 'default'}}}
