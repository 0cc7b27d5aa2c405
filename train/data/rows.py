"""The usual feed of a run: tokens packed into rows of `length + 1`, in a new order every epoch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jax.sharding import Mesh

from model.errors import ConfigError, DataError
from model.tokenizer import MASK, MASKS
from train.artifact import Store
from train.data.document import Split
from train.data.heldout import Heldout, Windows
from train.data.masking import Corrupt, Masking, Token
from train.data.mixture import Mixture, Schedule, Share
from train.data.pack import Stream, Whole
from train.data.pipeline import Batches, Placement
from train.data.token_files import TokenSplit
from train.data.tokens import TokenFiles
from train.data.visits import Visits
from train.data.vocabulary import AnyVocabulary
from train.eval.perplexity import Scorer
from train.types import Evaluator, Form, Params, Setting

if TYPE_CHECKING:
  from train.build import Built
  from train.run import Run


@dataclass(frozen=True)
class Rows:
  """Rows of tokens or of a mixture, for the next token or, with `masking`, for hidden ones.

  The order depends on the seed alone: batch s is the same on any number of processes and devices.
  """

  tokens: TokenFiles | Mixture
  length: int
  packing: Stream | Whole = Stream()
  masking: Masking | None = None
  seed: int = 0

  def __post_init__(self):
    if self.length < 1:
      raise ConfigError('config.out-of-range', f'rows.length = {self.length}', 'it counts tokens', 'use 1 or more')

  @property
  def form(self) -> Form:
    return 'text' if self.masking is None else 'masked'

  @property
  def vocabulary(self) -> AnyVocabulary:
    return self.tokens.vocabulary

  @property
  def reads(self) -> int:
    return self.length

  def check(self, run: 'Run') -> None:
    pass

  def holds(self, run: 'Run', built: 'Built') -> dict[str, Any]:
    return {}

  def open(self, setting: Setting) -> Batches:
    return self.source(setting.store, batch=setting.run.batch, mesh=setting.built.mesh)

  def evaluator(self, setting: Setting, rows: int) -> Evaluator:
    """The loss on held-out rows, in nats a token and in bits a byte."""
    heldout = self.heldout(setting.store, rows)
    columns = next(heldout.batches(len(heldout)))
    score = Scorer(setting.built.model, setting.run.objective, columns, setting.run.batch, setting.tokenizer.bytes_of)

    def judged(params: Params) -> dict[str, float]:
      result = score(params)
      return {'heldout_loss': result.loss, 'heldout_bpb': result.bits_per_byte}

    return judged

  def visits(self, store: Store) -> Visits:
    """The order of all rows.

    Raises: DataError if tokens are not as they were made, or a source of the mixture holds nothing.
    """
    opened = self._open(store, 'train')
    schedule = Schedule(tuple(share.weight for share in self._shares()))
    return Visits(opened, schedule, self.packing, self.length, self.seed)

  def source(self, store: Store, *, batch: int, mesh: Mesh) -> Batches:
    """Batches of so many rows on the mesh, of which this process makes those that its devices hold."""
    placement = Placement(mesh, batch)
    visits = self.visits(store)
    return Batches(visits, batch, rows=placement.rows, place=placement, stages=self.stages(store, visits.parts[0].tokens))

  def heldout(self, store: Store, rows: int | None = None, stride: int | None = None) -> Heldout:
    """Rows of the held-out documents, which score each token once; if `rows` says so, only that many, evenly spread."""
    opened = self._open(store, 'heldout')
    windows = [Windows(tokens, source, self.length, stride or self.length) for tokens, source in opened]
    return Heldout(windows, rows, self.stages(store, opened[0][0]))

  def _shares(self) -> tuple[Share, ...]:
    shares = self.tokens.shares if isinstance(self.tokens, Mixture) else (Share(self.tokens, 1.0),)
    return tuple(share for share in shares if share.weight > 0)

  def _open(self, store: Store, split: Split) -> list[tuple[TokenSplit, str | None]]:
    """The tokens of each share, each file read once, all in the ids of one tokenizer, and all with a mask if one has it."""
    shares = self._shares()
    opened = {tokens: tokens.open(store, split) for tokens in dict.fromkeys(share.tokens for share in shares)}
    first, *others = opened.values()
    for other in others:
      if other.manifest['tokenizer'] != first.manifest['tokenizer']:
        raise DataError('mixture.tokenizers', f'{first.folder.name} and {other.folder.name}',
                        'the same id stands for different text in them', 'make them with one vocabulary')
    if any(each.mask is not None for each in opened.values()):
      opened = {tokens: each.masked() for tokens, each in opened.items()}
    return [(opened[share.tokens], share.source) for share in shares]

  def stages(self, store: Store, tokens: TokenSplit) -> list[Corrupt]:
    if self.masking is None:
      return []
    if tokens.mask is not None:
      raise ConfigError('config.masking', f'rows.masking = {self.masking}', f'{tokens.folder.name} says itself which of '
                        'its tokens are learnt', 'set masking to None')
    found = [tokens.manifest['controls'][name] for name in MASKS if name in tokens.manifest['controls']]
    if not found:
      raise DataError('tokenizer.no-mask', f'{self.vocabulary.name}: it has no {MASK}',
                      'it takes the place of hidden tokens', 'train a vocabulary, or set masking to None')
    edges = None if isinstance(self.masking.unit, Token) else self.vocabulary.load(store).edges
    return [Corrupt(self.masking, self.seed, tokens.bytes_of, found[0], edges)]
