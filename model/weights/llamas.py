"""The config.json of Llama, and of all that are like it but for a few switches: as a `Decoder`, and from one."""

from dataclasses import replace
from typing import Literal

from model.config import AllHeads, Attention, Decoder, Gated, RMSNorm, Rotary, Window
from model.errors import DataError
from model.weights.positions import partial, period, rotary, told, window
from model.weights.said import WRITTEN, Fields, Said, activation, only


def llama(said: Said) -> Decoder:
  """What Llama 1 to 3.2, TinyLlama and SmolLM say, and all others in part."""
  width, heads = said.get('hidden_size', int), said.count('num_attention_heads')
  bias = said.get('attention_bias', bool, False)
  size = said.get('head_dim', int, width // heads)
  attention = Attention(heads, said.get('num_key_value_heads', int, heads), size, bias, bias)
  mlp = Gated(said.get('intermediate_size', int), activation(said, 'hidden_activation', 'hidden_act'),
              said.get('mlp_bias', bool, False))
  return Decoder(said.get('vocab_size', int), width, said.get('num_hidden_layers', int), attention, mlp,
                 RMSNorm(said.get('rms_norm_eps', float, 1e-6)), positions=rotary(said),
                 tied=said.get('tie_word_embeddings', bool, False))


def write_llama(config: Decoder) -> Fields:
  """The fields that all of these have."""
  heads = config.attention
  positions, mlp, norm = only(config.positions, Rotary), only(config.mlp, Gated), only(config.norm, RMSNorm)
  fields: Fields = {
    'hidden_size': config.width, 'num_hidden_layers': config.layers, 'num_attention_heads': heads.heads,
    'num_key_value_heads': heads.kv_heads, 'head_dim': heads.head_size, 'intermediate_size': mlp.hidden,
    'hidden_act': WRITTEN[mlp.activation], 'rms_norm_eps': norm.eps, 'vocab_size': config.vocab,
    'tie_word_embeddings': config.tied, 'attention_bias': heads.out_bias, 'mlp_bias': mlp.bias,
    'max_position_embeddings': 131_072, 'rope_parameters': told(positions), 'rope_theta': positions.theta}
  if heads.window is not None:
    kinds = [heads.window.pattern[i % len(heads.window.pattern)] for i in range(config.layers)]
    fields |= {'sliding_window': heads.window.size,
               'layer_types': [{'local': 'sliding_attention', 'global': 'full_attention'}[kind] for kind in kinds]}
  return fields


def bare(said: Said) -> Decoder:
  """Llama without biases, where its makers' code has none, whatever a config says."""
  said.must('attention_bias', False)
  said.must('mlp_bias', False)
  return llama(said)


def mistral(said: Said) -> Decoder:
  """Llama with a window, which later ones have not."""
  config = bare(said)
  return replace(config, attention=replace(config.attention, window=window(said)))


def qwen2(said: Said) -> Decoder:
  """Llama with biases on q, k and v; a window where it says that it is used."""
  config = bare(said)
  return replace(config, attention=replace(config.attention, qkv_bias=True, out_bias=False, window=upper(said)))


def upper(said: Said) -> Window | None:
  """The window of the layers from `max_window_layers` on, or of those that `layer_types` names, where it is used."""
  if not said.get('use_sliding_window', bool, False):
    return None
  begin, layers = said.get('max_window_layers', int, 28), said.count('num_hidden_layers')
  return window(said, tuple('full_attention' if layer < begin else 'sliding_attention' for layer in range(layers)))


def write_qwen2(config: Decoder) -> Fields:
  return write_llama(config) | {'use_sliding_window': config.attention.window is not None}


def qwen3(said: Said) -> Decoder:
  """Llama with a norm over each head of q and k."""
  said.must('mlp_bias', False)
  config = llama(said)
  return replace(config, attention=replace(config.attention, qk_norm=only(config.norm, RMSNorm), window=upper(said)))


def phi3(said: Said) -> Decoder:
  """Mistral with fused tensors; a part of each head may be turned."""
  whole, fraction = partial(said, 1.0)
  config = mistral(whole)
  return replace(config, positions=replace(only(config.positions, Rotary), fraction=fraction))


def olmo(said: Said) -> Decoder:
  """What OLMo 2 and OLMoE have in common."""
  config = llama(said.or_else(rms_norm_eps=1e-5))
  norm = only(config.norm, RMSNorm)
  return replace(config, attention=replace(config.attention, qk_norm=AllHeads(norm.eps)))


def olmo2(said: Said) -> Decoder:
  """Llama with norms of what comes out of attention and MLP, not of what goes in, and over all heads of q and of k."""
  said.must('mlp_bias', False)
  return replace(olmo(said), placement='output')


def smollm3(said: Said) -> Decoder:
  """Llama, some of whose layers do not turn; where there is a window, it is theirs."""
  config = llama(said.or_else(rope_theta=2e6, num_key_value_heads=4, tie_word_embeddings=True))
  turns = turning(said)
  kinds = tuple('full_attention' if turn else 'sliding_attention' for turn in turns)
  if not (used := said.get('use_sliding_window', bool, False)):
    said.must('layer_types', ['full_attention'] * config.layers)
  attention = replace(config.attention, window=window(said, kinds) if used else None)
  pattern: tuple[Literal['turned', 'still'], ...] = tuple('turned' if turn else 'still' for turn in turns[:period(turns)])
  return replace(config, attention=attention, positions=replace(only(config.positions, Rotary), pattern=pattern))


def turning(said: Said) -> list[int]:
  """Of each layer 1 if its queries and keys turn, else 0. Raises: DataError."""
  layers, turns = said.count('num_hidden_layers'), said.fields.get('no_rope_layers')
  if turns is None:
    every = said.count('no_rope_layer_interval', 4)
    return [int((i + 1) % every != 0) for i in range(layers)]
  if not isinstance(turns, list) or len(turns) < layers or any(turn not in (0, 1) for turn in turns):
    raise DataError('weights.config', f'{said.where}: no_rope_layers = {turns!r:.60}',
                    f'it is a list of 0 or 1 for each of {layers} layers', 'mend it')
  return turns[:layers]


def write_smollm3(config: Decoder) -> Fields:
  pattern = only(config.positions, Rotary).pattern
  return write_qwen2(config) | {'no_rope_layers': [int(pattern[i % len(pattern)] == 'turned') for i in range(config.layers)]}
