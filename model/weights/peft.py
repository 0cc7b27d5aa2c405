"""Adapters as folders of the PEFT library: `adapter_config.json` beside `adapter_model.safetensors`, written and read.

    write_peft(Path('mine'), config, params)                    PeftModel.from_pretrained(base, 'mine')
    params = read_peft(Path('theirs'), config, params)          a plain tree, adapted

PEFT adapts published matrices, which are apart where ours are fused: each part of a fused matrix goes to the matrix of its
own, and one adapter over all of it to each of them, with the same A. Letters: N layers, I inputs, O outputs, r the rank.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from model.adapt import DoRA, LoRA
from model.adapter_tree import adapted
from model.config import Decoder
from model.errors import ConfigError, DataError
from model.linear import INPUTS, Place, Weight, edited, is_weight
from model.lowrank import LowRank, Span, Target
from model.weights.exporting import appearing, held, write_object
from model.weights.families import family_for
from model.weights.folder import read_object
from model.weights.layout import Gates, Heads, Joined, Layout, Out, PerHead, Turned
from model.weights.names import Rule
from model.weights.safetensors import open_safetensors, write_safetensors
from model.weights.said import Fields, Said
from model.weights.tensor import Tensor, Tensors

CONFIG, TENSORS = 'adapter_config.json', 'adapter_model.safetensors'
BEFORE = 'base_model.model.'
A, B, MAGNITUDE = 'lora_A.weight', 'lora_B.weight', 'lora_magnitude_vector'
READ = ('peft_type', 'r', 'lora_alpha', 'lora_dropout', 'target_modules', 'use_dora', 'use_rslora', 'bias', 'init_lora_weights')
SILENT = ('auto_mapping', 'base_model_name_or_path', 'inference_mode', 'loftq_config', 'megatron_core', 'peft_version',
          'qalora_group_size', 'revision', 'runtime_config', 'task_type')            # that change nothing of what is computed
WHOLE = {'qkv': ('q', 'k', 'v'), 'gate_up': ('gate', 'up')}


class Matrix(NamedTuple):
  """One of our matrices of the blocks: the published modules that it is made of, what adapts each, how their B's are ours."""

  modules: tuple[str, ...]            # {} is a layer's number
  parts: tuple[str, ...]              # a Target for each
  layout: Layout

  def covered(self, part: str) -> list[int]:
    """Which of the modules an adapter of this part adapts; [] if it is less than a module."""
    return [i for i, each in enumerate(self.parts) if each == part or each in WHOLE.get(part, ())]


def matrices(config: Decoder) -> dict[str, Matrix]:
  """By the names of `model.linear.INPUTS`. Raises: ConfigError for families whose adapters are not known here."""
  family = family_for(config)[0]
  found = {rule.ours.split('/')[2]: _matrix(rule) for rule in family.rules(config)
           if rule.layered and rule.ours.endswith('/weight') and rule.ours.split('/')[2] in INPUTS}
  if found.keys() != INPUTS.keys() or not all(found.values()):
    raise ConfigError('peft.family', f'adapters of {family.architecture}', 'its matrices of experts, or that are [in, out], '
                      'are not known to PEFT as ours are', 'give the merged model: --format=hf')
  return cast(dict[str, Matrix], found)


def _matrix(rule: Rule) -> Matrix | None:
  modules, module = tuple(name.removesuffix('.weight') for name in rule.theirs), rule.ours.split('/')[2]
  match rule.layout:
    case Heads():
      return Matrix(modules, WHOLE['qkv'], rule.layout)
    case Gates():
      return Matrix(modules, WHOLE['gate_up'], rule.layout)
    case Joined(Gates()):
      return Matrix(modules, ('gate_up',), rule.layout)
    case Turned() | Out() | Joined() | PerHead():
      return Matrix(modules, (module,), Turned() if isinstance(rule.layout, Out) else rule.layout)
  return None


def write_peft(folder: Path, config: Decoder, params: Any, base: str | None = None,
               scaling: Literal['rank', 'sqrt'] = 'rank') -> int:
  """How many tensors were written: the adapters of a tree, in float32. `base` is what PEFT calls the model below them.

  Raises: ConfigError where there are none, where PEFT has no words for them, and where the folder is there.
  """
  if not adapted(params):
    raise ConfigError('peft.none', 'the parameters', 'they have no adapters', 'give the model itself: --format=hf')
  known = matrices(config)
  leaves = {names[2]: leaf for names, leaf in _leaves(params) if isinstance(leaf, LowRank)}
  tensors = [held(tensor) for module, w in leaves.items() for tensor in _tensors(module, known[module], w)]
  fields = _fields([*leaves.values()], scaling)
  named = {tensor.name.removesuffix(f'.{A}').rpartition('.')[2] for tensor in tensors if tensor.name.endswith(A)}
  with appearing(folder) as part:
    write_safetensors(part / TENSORS, tensors)
    write_object(part / CONFIG, fields | {'target_modules': sorted(named), 'base_model_name_or_path': base})
  return len(tensors)


def _leaves(params: Any) -> Iterator[tuple[list[str], Weight]]:
  for path, leaf in jax.tree_util.tree_leaves_with_path(params, is_leaf=is_weight):
    yield [part.key for part in path], leaf


def _fields(leaves: list[LowRank], scaling: str) -> Fields:
  """What all adapters have in common. Raises: ConfigError where they differ."""
  kinds = {(w.a.shape[-1], w.scale, w.dropout, w.magnitudes is not None) for w in leaves}
  if len(kinds) > 1:
    raise ConfigError('peft.differ', f'adapters of rank, scale, dropout and DoRA {sorted(kinds)}', 'a folder of PEFT as it is '
                      'written here has one of each', 'give the merged model: --format=hf')
  [(rank, scale, dropout, lengths)] = kinds
  return {'peft_type': 'LORA', 'task_type': 'CAUSAL_LM', 'inference_mode': True, 'r': rank, 'lora_dropout': dropout,
          'lora_alpha': _alpha(scale, rank if scaling == 'rank' else rank ** 0.5), 'use_rslora': scaling == 'sqrt',
          'use_dora': lengths, 'bias': 'none', 'fan_in_fan_out': False, 'init_lora_weights': True}


def _alpha(scale: float, divisor: float) -> float:
  """What divided by it is the scale, a whole number if one is."""
  return next((alpha for alpha in (round(scale * divisor), round(scale * divisor, 6)) if alpha / divisor == scale),
              scale * divisor)


def _tensors(module: str, matrix: Matrix, w: LowRank) -> Iterator[Tensor]:
  for i, span in enumerate(w.spans):
    covered = matrix.covered(span.part)
    if not covered:
      raise ConfigError('peft.fused', f'an adapter of {span.part}', f'{matrix.modules[0]} holds it and others in one matrix, '
                        'which PEFT adapts as one', f'adapt {matrix.parts[0]!r}, or give the merged model: --format=hf')
    b, a = _laid(w, span, np.asarray(w.b[span.part])), np.asarray(w.a)[..., i, :]
    lengths = None if w.magnitudes is None else _laid(w, span, np.asarray(w.magnitudes[span.part])[:, None])
    for layer in range(len(a)):
      for place in covered:
        name = BEFORE + matrix.modules[place].format(layer)
        yield _tensor(f'{name}.{A}', a[layer].reshape(-1, a.shape[-1]).T)
        yield _tensor(f'{name}.{B}', matrix.layout.theirs(b[layer])[place])
        if lengths is not None:
          yield _tensor(f'{name}.{MAGNITUDE}', matrix.layout.theirs(lengths[layer])[place][:, 0])


def _laid(w: LowRank, span: Span, part: np.ndarray) -> np.ndarray:
  """[N, r, *O of the part] -> [N, r, *O], zeros elsewhere."""
  whole = np.zeros((*part.shape[:2], *w.shape[1 + w.inputs:]), np.float32)
  whole[_index(span)] = part
  return whole


def _index(span: Span) -> tuple[Any, ...]:
  """Where a part lies in [N, r, *O]."""
  return (slice(None),) * (2 + span.axis) + (slice(span.begin, span.end),)


def _tensor(name: str, x: np.ndarray) -> Tensor:
  x = np.asarray(x, np.float32)
  return Tensor(name, x.shape, x.dtype, lambda slices: x[slices])


def read_peft(folder: Path, config: Decoder, params: Any) -> Any:
  """The plain tree of a model with a folder's adapters over it.

  Raises: DataError that names a switch or a module that is not known here, and tensors that are missing, too many, of
  another shape or not finite; ConfigError as `LoRA` does.
  """
  said = Said(str(folder / CONFIG), read_object(folder / CONFIG))
  edit, lengths, tensors = _edit(said, matrices(config)), said.get('use_dora', bool, False), open_safetensors(folder / TENSORS)
  params = edit(params, jax.random.key(0))
  params = DoRA()(params, jax.random.key(0)) if lengths else params
  known, read = matrices(config), _Reading(folder / TENSORS, tensors)
  made = edited(params, lambda place, w: _filled(read, known[place.module], place, w) if isinstance(w, LowRank) else w)
  read.finish()
  return made


def _edit(said: Said, known: dict[str, Matrix]) -> LoRA:
  said.must('peft_type', 'LORA')
  said.must('bias', 'none')
  said.must('init_lora_weights', True, False, 'gaussian', 'orthogonal')            # others change the model below
  for name in sorted(said.fields.keys() - {*READ, *SILENT}):
    if said.fields[name]:
      said.must(name, None, False)
  scaling: Literal['rank', 'sqrt'] = 'sqrt' if said.get('use_rslora', bool, False) else 'rank'
  return LoRA(said.count('r'), said.get('lora_alpha', float), _targets(said, known), scaling,
              said.get('lora_dropout', float, 0.0))


def _targets(said: Said, known: dict[str, Matrix]) -> tuple[Target, ...]:
  """Ours for the published modules that are adapted."""
  named = said.fields.get('target_modules')
  ours = {module.rpartition('.')[2]: part for matrix in known.values() for module, part in zip(matrix.modules, matrix.parts)}
  if not isinstance(named, list) or not named:
    raise DataError('peft.targets', f'{said.where}: target_modules = {named!r:.60}', 'it is a list of names of modules in such '
                    'a file', 'save the adapters again with a recent PEFT')
  for each in named:
    if not isinstance(each, str) or each.rpartition('.')[2] not in ours:
      raise DataError('peft.targets', f'{said.where}: target_modules has {each!r:.60}', f'this model has {", ".join(ours)}',
                      'use adapters of this model, and of its blocks alone')
  return cast(tuple[Target, ...], tuple(dict.fromkeys(ours[each.rpartition('.')[2]] for each in named)))


class _Reading:
  """The tensors of a file, and which of them were asked for."""

  def __init__(self, path: Path, tensors: Tensors):
    self.path, self.tensors, self.left = path, tensors, set(tensors)

  def take(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name not in self.tensors:
      raise DataError('peft.names', f'{self.path}: tensor {name}', 'it is missing', 'compare target_modules, and the model '
                      'that was adapted, with this one')
    tensor = self.tensors[name]
    if tensor.shape != shape:
      raise DataError('peft.shape', f'{self.path}: tensor {name}: {list(tensor.shape)}', f'with this model and rank it is '
                      f'{list(shape)}', 'compare r, and the model that was adapted, with this one')
    self.left.discard(name)
    return held(tensor).whole().astype(np.float32)

  def finish(self) -> None:
    """Raises: DataError if there are tensors that nothing asked for."""
    if self.left:
      raise DataError('peft.names', f'{self.path}: tensor {min(self.left)}', f'it and {len(self.left) - 1} others adapt '
                      'nothing that target_modules names', 'compare that, and the model that was adapted, with this one')


def _filled(read: _Reading, matrix: Matrix, place: Place, w: LowRank) -> LowRank:
  """The leaf with what the file has for it."""
  layers, inputs, rank = w.shape[0], w.shape[1:1 + w.inputs], w.a.shape[-1]
  a: list[np.ndarray] = []
  b: dict[str, Any] = {}
  lengths: dict[str, Any] = {}
  for span in w.spans:
    [at] = matrix.covered(span.part)
    names = [BEFORE + matrix.modules[at].format(layer) for layer in range(layers)]
    size = int(np.prod(inputs))
    a.append(np.stack([read.take(f'{name}.{A}', (rank, size)).T.reshape(*inputs, rank) for name in names]))
    b[span.part] = _ours(read, matrix, w, span, [f'{name}.{B}' for name in names], rank)
    if w.magnitudes is not None:
      lengths[span.part] = _ours(read, matrix, w, span, [f'{name}.{MAGNITUDE}' for name in names], None)[:, 0]
  return replace(w, a=jnp.asarray(np.stack(a, -2)), b=b, magnitudes=lengths or None)


def _ours(read: _Reading, matrix: Matrix, w: LowRank, span: Span, names: list[str], rank: int | None) -> jax.Array:
  """[N, r, *O of the part] of one module's tensors [O, r], or [O], as if r were 1, where there is no rank."""
  blank = matrix.layout.theirs(np.zeros((rank or 1, *w.shape[1 + w.inputs:]), np.float32))
  [at] = matrix.covered(span.part)
  found = []
  for name in names:
    x = read.take(name, blank[at].shape if rank else blank[at].shape[:1])
    found.append(matrix.layout.ours([x.reshape(each.shape) if i == at else each for i, each in enumerate(blank)]))
  return jnp.asarray(np.stack(found)[_index(span)])
