"""A GGUF file as if it were a folder of Hugging Face's: its metadata as a config, its tensors by their names; and back.

llama.cpp turns neighbouring pairs of numbers, so its files of Llamas hold the rows of q and k in another order than the
published ones; here they are put back. Such files name no rotary scaling but as a tensor of factors, which is refused. What is
written is a model that is read again to the last field, and no other.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from model.config import Decoder
from model.decoder import Params
from model.errors import ConfigError, DataError
from model.weights.families import FAMILIES, Family
from model.weights.gguf import open_gguf
from model.weights.gguf_writing import write_gguf
from model.weights.loading import published
from model.weights.said import Fields, Said, Unlike
from model.weights.tensor import Slices, Tensor, Tensors

ARCHITECTURES = {'llama': 'LlamaForCausalLM', 'qwen2': 'Qwen2ForCausalLM', 'qwen3': 'Qwen3ForCausalLM'}
FIELDS = {                        # of config.json -> of the metadata, after the architecture's name
  'hidden_size': 'embedding_length', 'num_hidden_layers': 'block_count', 'num_attention_heads': 'attention.head_count',
  'num_key_value_heads': 'attention.head_count_kv', 'intermediate_size': 'feed_forward_length', 'rope_theta': 'rope.freq_base',
  'rms_norm_eps': 'attention.layer_norm_rms_epsilon', 'head_dim': 'attention.key_length',
  'max_position_embeddings': 'context_length'}
NAMES = {                         # of GGUF -> of safetensors; {} is a layer's number
  'token_embd': 'model.embed_tokens', 'output_norm': 'model.norm', 'output': 'lm_head',
  'blk.{}.attn_norm': 'model.layers.{}.input_layernorm', 'blk.{}.ffn_norm': 'model.layers.{}.post_attention_layernorm',
  'blk.{}.attn_q': 'model.layers.{}.self_attn.q_proj', 'blk.{}.attn_k': 'model.layers.{}.self_attn.k_proj',
  'blk.{}.attn_v': 'model.layers.{}.self_attn.v_proj', 'blk.{}.attn_output': 'model.layers.{}.self_attn.o_proj',
  'blk.{}.attn_q_norm': 'model.layers.{}.self_attn.q_norm', 'blk.{}.attn_k_norm': 'model.layers.{}.self_attn.k_norm',
  'blk.{}.ffn_gate': 'model.layers.{}.mlp.gate_proj', 'blk.{}.ffn_up': 'model.layers.{}.mlp.up_proj',
  'blk.{}.ffn_down': 'model.layers.{}.mlp.down_proj'}
THEIRS = {ours: theirs for theirs, ours in NAMES.items()}
FILE_TYPES = {'F32': 0, 'F16': 1, 'Q8_0': 7}                 # llama.cpp's numbers for files


def open_model(path: Path) -> tuple[Said, Tensors]:
  """The file's config and its tensors, both as in a folder. Raises: DataError for what is not known here."""
  file = open_gguf(path)
  kind = file.metadata.get('general.architecture')
  if kind not in ARCHITECTURES:
    raise DataError('weights.architecture', f'{path}: general.architecture = {kind!r:.40}',
                    f'known are {", ".join(ARCHITECTURES)}', 'use a model of one of these, or its safetensors')
  embedding = file.tensors.get('token_embd.weight')
  said = _said(str(path), kind, file.metadata, embedding.shape[0] if embedding else 0, 'output.weight' not in file.tensors)
  return said, _renamed(path, file.tensors, said if kind == 'llama' else None)


def _said(where: str, kind: str, metadata: dict[str, Any], vocab: int, tied: bool) -> Said:
  """What metadata say, as a config.json would."""
  found = {ours: value for ours, theirs in FIELDS.items() if (value := metadata.get(f'{kind}.{theirs}')) is not None}
  fields = found | {'architectures': [ARCHITECTURES[kind]], 'tie_word_embeddings': tied, 'vocab_size': vocab}
  if metadata.get(f'{kind}.rope.scaling.type', 'none') != 'none':
    fields['rope_scaling'] = {'rope_type': metadata[f'{kind}.rope.scaling.type'],
                              'factor': metadata.get(f'{kind}.rope.scaling.factor')}
  return Said(where, {name: float(str(np.float32(value))) if isinstance(value, float) else value       # as it was meant
                      for name, value in fields.items()})


def write_model(path: Path, config: Decoder, params: Params, metadata: dict[str, Any], kind: str = 'F16',
                context: int | None = None) -> str:
  """The architecture as which it was written, its matrices as `kind`, with these metadata of its tokenizer and others.

  `context` is how many tokens it has learnt to read at once.
  Raises: ConfigError for a model that is none of llama.cpp's in all that these files say, and as `write_gguf` does.
  """
  name, family, said = metadata_of(config)
  said |= {} if context is None else {f'{name}.context_length': context}
  heads = {'q': config.attention.heads, 'k': config.attention.kv_heads} if name == 'llama' else {}
  tensors = [_theirs(tensor, heads) for tensor in published(config, family.rules(config), params, np.dtype(np.float32))]
  write_gguf(path, said | {'general.file_type': FILE_TYPES.get(kind, 0), 'general.quantization_version': 2} | metadata,
             tensors, kind)
  return name


def metadata_of(config: Decoder) -> tuple[str, Family, dict[str, Any]]:
  """The architecture, the family and the metadata of a model, which mean that model to the last field."""
  meant = replace(config, compute_dtype='float32', stream_dtype='float32', param_dtype='float32')
  for name, architecture in ARCHITECTURES.items():
    family = next(each for each in FAMILIES if each.architecture == architecture)
    try:
      fields = family.write(meant)
      metadata = {'general.architecture': name, 'general.name': name} | _metadata(name, fields)
      if family.read(_said('the metadata', name, metadata, config.vocab, config.tied)) == meant:
        return name, family, metadata
    except (Unlike, ConfigError, DataError):
      continue
  raise ConfigError('weights.no-family', f'a GGUF file of {config}', f'the forms that are written are '
                    f'{", ".join(ARCHITECTURES)}, without windows, biases of their own, activations but SiLU, rotary scaling',
                    'give it as a folder: --format=hf')


def _metadata(name: str, fields: Fields) -> dict[str, Any]:
  told = {theirs: fields[ours] for ours, theirs in FIELDS.items()}
  more = {'vocab_size': fields['vocab_size'], 'attention.value_length': fields['head_dim'],
          'rope.dimension_count': fields['head_dim']}
  scaling = fields['rope_parameters']
  if scaling['rope_type'] != 'default':
    more |= {'rope.scaling.type': scaling['rope_type'], 'rope.scaling.factor': scaling['factor']}
  return {f'{name}.{field}': value for field, value in (told | more).items()}


def _theirs(tensor: Tensor, heads: dict[str, int]) -> Tensor:
  """The tensor by its name in such a file; rows of q and k of so many heads in their order there."""
  stem, _, end = tensor.name.rpartition('.')
  layer = re.search(r'\.layers\.(\d+)\.', stem)
  number = layer[1] if layer else ''
  known = THEIRS[stem.replace(f'.{number}.', '.{}.', 1) if layer else stem]
  part = re.search(r'\.([qk])_proj$', stem)
  read = _reordered(tensor, heads[part[1]], 2, -1) if part and heads else tensor.read
  return tensor._replace(name=f'{known.format(number)}.{end}', read=read)


def _renamed(path: Path, tensors: dict[str, Tensor], turned: Said | None) -> Tensors:
  """The tensors by their names in a folder; with `turned`, q and k of that config put back in order."""
  found: dict[str, Tensor] = {}
  for name, tensor in tensors.items():
    stem, _, end = name.rpartition('.')
    layer = re.match(r'blk\.(\d+)\.', stem)
    number = layer[1] if layer else ''
    known = NAMES.get(stem.replace(f'blk.{number}.', 'blk.{}.', 1) if layer else stem)
    if known is None:
      raise DataError('weights.names', f'{path}: tensor {name!r:.60}', 'it is not known here', 'use the model\'s safetensors')
    name = f'{known.format(number)}.{end}'
    part = re.search(r'\.([qk])_proj\.', name)
    if turned and part:
      heads = turned.get('num_attention_heads' if part[1] == 'q' else 'num_key_value_heads', int)
      found[name] = tensor._replace(name=name, read=_reordered(tensor, heads, -1, 2))
    else:
      found[name] = tensor._replace(name=name)
  return found


def _reordered(tensor: Tensor, heads: int, *pairs: int) -> Callable[[Slices], np.ndarray]:
  """Reads rows of heads, [H * K, ...], in the other order of pairs.

  llama.cpp lays out neighbouring pairs, (-1, 2); published files, and ours, pairs (i, i + K/2), which are (2, -1).
  """
  def read(slices: Slices) -> np.ndarray:
    w = tensor.whole()
    return w.reshape(heads, *pairs, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)[slices]

  return read
