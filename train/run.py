"""A run: a model, its data, its objective, its optimizer, and for how many steps.

    experiment file -> Run -> mesh -> state -> source -> step -> hooks -> checkpoints and run.json

Its folder holds, beside what every artifact has (`train.artifact`):

    ledger.jsonl      each step's loss to the last bit          checkpoints/   the state and the source's position
    metrics.jsonl     what people look at, every few steps      tensorboard/   the same, for TensorBoard
    samples.jsonl     what the model says while it learns       nonfinite.jsonl    steps that were skipped, if any
"""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Optional

from model.config import Compute, Decoder
from model.edit import Edit
from model.errors import ConfigError
from model.new_tokens import NewTokens
from model.sharding import MeshShape
from train.artifact import Artifact, Store, how
from train.build import Built, build, fitting
from train.canonical import added
from train.data.extended import added_to
from train.data.vocabulary import AnyVocabulary
from train.objectives import NextToken
from train.optimizer import Optimizer
from train.price import price
from train.published import Published
from train.saving.peers import together
from train.saving.shelf import look
from train.types import Feed, Objective


@dataclass(frozen=True)
class Watch:
  """How often metrics, held-out loss and samples are written, in steps; 0 is never."""

  metrics: int = 10
  heldout: int = 200
  heldout_rows: int = 64               # the same rows every time; the report scores all that is held out
  samples: int = 0
  prompts: tuple[str, ...] = ('',)
  sample_tokens: int = 64
  profile: tuple[int, int] | None = None      # a trace from after the first of these steps to after the second
  skips: int = 5                       # steps in a row whose loss or gradient may be not finite

  def __post_init__(self):
    _count(self, 'metrics', least=1)
    _count(self, 'heldout', 'heldout_rows', 'samples', 'skips', least=0)
    _count(self, 'sample_tokens', least=1)


@dataclass(frozen=True)
class Saving:
  """How often the state is saved (0: at the end alone), and how many of the latest saves are kept."""

  every: int = 200
  keep: int = 2

  def __post_init__(self):
    _count(self, 'every', least=0)
    _count(self, 'keep', least=1)


def _count(thing: Any, *names: str, least: int) -> None:
  for name in names:
    if getattr(thing, name) < least:
      raise ConfigError('config.out-of-range', f'{name} = {getattr(thing, name)}', f'it must be at least {least}',
                        f'use {least} or more')


@dataclass(frozen=True, kw_only=True)
class Run(Artifact):
  """One training. `batch` counts rows of the global batch. With `restore`, it starts from the parameters of that run.

  `edits` are applied to those, in order, and decide what learns: with adapters only these and the rows of new tokens
  (`model.new_tokens`), and nothing that is frozen (`model.freeze`).
  """

  model: Decoder
  rows: Feed
  batch: int
  steps: int
  objective: Objective = NextToken()
  optimizer: Optimizer = Optimizer()
  seed: int = 0
  restore: Optional['Run | Published'] = None
  edits: tuple[Edit, ...] = added(())
  mesh: MeshShape = how(MeshShape())
  parts: int = how(1)                  # the batch is taken in so many parts, one after another: smaller temporaries
  compute: Compute = how(Compute())
  watch: Watch = how(Watch())
  saving: Saving = how(Saving())

  together: ClassVar[bool] = True

  def __post_init__(self):
    _count(self, 'batch', 'steps', 'parts', least=1)
    if self.rows.vocabulary.size > self.model.vocab:
      raise ConfigError('config.vocab', f'model.vocab = {self.model.vocab}',
                        f'the vocabulary {self.rows.vocabulary.name} has {self.rows.vocabulary.size} ids',
                        f'set model.vocab to {self.rows.vocabulary.size} or more')
    if self.restore:
      self._check_vocabulary(self.restore)
    if self.rows.form != self.objective.form:
      raise ConfigError('config.rows', f'objective = {type(self.objective).__name__}, rows = {type(self.rows).__name__}',
                        f'the objective learns from rows of {self.objective.form}, and these are {self.rows.form}',
                        'use rows and an objective that belong together')
    if self.edits and self.restore is None:
      raise ConfigError('config.edits', f'edits = {self.edits}, restore = None', 'they are made to a model that is trained',
                        'set restore to its run')
    self.objective.check(self)
    self.rows.check(self)

  def _check_vocabulary(self, parent: 'Parent') -> None:
    """Raises: ConfigError unless its vocabulary is its parent's, or extends it by as many tokens as its edits add rows for."""
    more = added_to(parent.vocabulary, self.vocabulary)
    if more is None:
      raise ConfigError('config.other-vocabulary', f'restore = {parent.name}, rows of {self.vocabulary.name}',
                        f'its parameters know the ids of {parent.vocabulary.name}', 'use rows in that vocabulary, or '
                        'in an ExtendedVocabulary over it, with NewTokens among the edits')
    meant = (NewTokens(more, parent.model.vocab - parent.vocabulary.size),) if more else ()
    made = tuple(edit for edit in self.edits if isinstance(edit, NewTokens))
    if made != meant:
      raise ConfigError('config.new-tokens', f'edits have {made}, rows of {self.vocabulary.name}',
                        f'it has {more} tokens that {parent.vocabulary.name} of the parent has not',
                        f'put {meant[0]} among the edits' if meant else 'leave NewTokens out, or use rows in a vocabulary that '
                        'extends the parent\'s')

  @property
  def vocabulary(self) -> AnyVocabulary:
    """The vocabulary of its rows."""
    return self.rows.vocabulary

  @property
  def lineage_of_edits(self) -> tuple[Edit, ...]:
    """The lasting edits of its ancestors and its own, in order: what turns the parameters of `origin` into those of `model`."""
    before = self.restore.lineage_of_edits if self.restore else ()
    return (*(edit for edit in before if edit.lasting), *self.edits)

  @property
  def origin(self) -> Decoder:
    """The model of its first ancestor, to which `lineage_of_edits` are applied."""
    return self.restore.origin if self.restore else self.model

  def build(self, devices: Any = None) -> Built:
    """Its pure functions and the shardings of its state, from shapes alone: reads no data and compiles nothing."""
    return build(self.model, self.objective, self.optimizer, self.steps, batch=self.batch, length=self.rows.length,
                 parts=self.parts, compute=self.compute, mesh=self.mesh, edits=self.lineage_of_edits, origin=self.origin,
                 devices=devices)

  def fits(self) -> None:
    fitting(self.model, self.batch, self.rows.length, self.parts, self.mesh)

  def price(self) -> dict[str, str]:
    """Parameters, tokens, FLOPs and memory, in words: see `train.price`."""
    built = self.build()
    sides = self.rows.reads // self.rows.length
    return price(built, self.batch, self.rows.length, self.steps, self.rows.holds(self, built), sides=sides, parts=self.parts,
                 compute=self.compute)

  def remains(self, folder: Path) -> str:
    """How far its last save is: `at step 120 of 300`."""
    return f'at step {max(look(folder / "checkpoints").seals, default=0)} of {self.steps}'

  def make(self, folder: Path, store: Store) -> None:
    """Trains, from the last save on if there is one. Raises: UserErrors; `train.hooks.Preempted` once it saved on a signal."""
    from train.training import Training  # the configs of runs are read without what only training needs
    with together(), ExitStack() as stack:
      Training(self, folder, store, stack).go()


Parent = Run | Published           # what can be opened: `train.trained.load`
