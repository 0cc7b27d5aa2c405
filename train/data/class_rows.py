"""Rows for classification: whole texts packed side by side, with targets where their labels are.

    ClassRows(LabelledTokens(...), length=256)

A row holds as many texts as fit, so little of it is padding; a text is never cut in two, and no text sees another. Texts of one
length change places in every epoch, and so do the rows.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from model.decoder import Model
from model.errors import ConfigError, DataError
from train.artifact import Store
from train.classification import classifier_of, said
from train.data.labelled import LabelledSplit, LabelledTokens
from train.data.labelling import Texts, Words
from train.data.mixture import Schedule
from train.data.pack import Span, Whole, WholePlan, lay
from train.data.pipeline import Batches, Placement
from train.data.shuffle import key, permutation
from train.data.visits import Row, Visits
from train.data.vocabulary import AnyVocabulary
from train.eval.perplexity import lots
from train.eval.task import FIGURES
from train.types import Evaluator, Form, Params, Setting

if TYPE_CHECKING:
  from train.build import Built
  from train.run import Run


@dataclass(frozen=True)
class Mingled(Whole):
  """Best fit, as `Whole` has it, with the texts of each length in a new order every epoch."""

  def plan(self, lengths: np.ndarray, length: int, seed: int) -> 'MingledPlan':
    return MingledPlan(lengths, length, seed)


class MingledPlan:
  """The rows of `WholePlan`, in which texts of one length change places: so every epoch has as many rows."""

  def __init__(self, lengths: np.ndarray, length: int, seed: int):
    self.lengths, self.seed, self._whole = lengths, seed, WholePlan(lengths, length)
    self.rows = self._whole.rows
    self._instead = lru_cache(maxsize=2)(self._shuffled)

  def spans(self, epoch: int, row: int) -> list[Span]:
    instead = self._instead(epoch)
    return [span._replace(document=int(instead[span.document])) for span in self._whole.spans(epoch, row)]

  def _shuffled(self, epoch: int) -> np.ndarray:
    """Which text lies where another would, i64[texts]."""
    order = permutation(key(self.seed, 'texts', epoch), len(self.lengths))
    instead = np.empty_like(order)
    instead[np.argsort(self.lengths, kind='stable')] = order[np.argsort(self.lengths[order], kind='stable')]
    return instead


@dataclass(frozen=True)
class ClassRows:
  """A `train.types.Feed`: rows of `length` tokens, of texts that are judged as a whole or word by word."""

  tokens: LabelledTokens
  length: int = 256
  seed: int = 0

  form: ClassVar[Form] = 'classes'

  def __post_init__(self):
    if self.length < self.tokens.longest:
      raise ConfigError('config.out-of-range', f'rows.length = {self.length}',
                        f'a text of {self.tokens.name} may have {self.tokens.longest} tokens, and is not cut',
                        'use longer rows, or cut the texts: tokens.longest')

  @property
  def vocabulary(self) -> AnyVocabulary:
    return self.tokens.vocabulary

  @property
  def reads(self) -> int:
    return self.length

  def check(self, run: 'Run') -> None:
    """Raises: ConfigError if the head has another number of classes, or its pooling does not suit labels and model."""
    head, found = classifier_of(run), len(self.tokens.classes)
    if head.classes != found:
      raise ConfigError('classes.number', f'Classifier.classes = {head.classes}', f'{self.tokens.name} has {found} classes',
                        f'set it to {found}')
    if isinstance(self.tokens.labelling, Words) and head.pooling == 'mean':
      raise ConfigError('classes.pooling', "Classifier.pooling = 'mean'", 'all words of a text would be of one class',
                        "set it to 'token'")
    if isinstance(self.tokens.labelling, Texts) and head.pooling == 'token' and run.model.causal:
      raise ConfigError('classes.blind', "Classifier.pooling = 'token', model.causal = True",
                        'a text is judged at its first token, which sees none of those after it',
                        "set pooling to 'mean', or use a model that reads from both sides")

  def holds(self, run: 'Run', built: 'Built') -> dict[str, Any]:
    return {}

  def open(self, setting: Setting) -> Batches:
    return self.source(setting.store, batch=setting.run.batch, mesh=setting.built.mesh)

  def source(self, store: Store, *, batch: int, mesh: Mesh) -> Batches:
    """Batches of so many rows on the mesh, of which this process makes those that its devices hold."""
    placement = Placement(mesh, batch)
    return Batches(self.visits(store), batch, rows=placement.rows, place=placement)

  def visits(self, store: Store) -> Visits:
    """The order of all rows. A plan of length L - 1 has rows of L tokens: here no token is only a target."""
    return Visits([(self.tokens.open(store, 'train'), None)], Schedule((1.0,)), Mingled(), self.length - 1, self.seed)

  def evaluator(self, setting: Setting, rows: int) -> Evaluator:
    """Loss in nats a label, accuracy, weighted and macro F1 on held-out rows."""
    ask = Ask(setting.built.model, heldout(self.tokens.open(setting.store, 'heldout'), self.length, rows), setting.run.batch)

    def judged(params: Params) -> dict[str, float]:
      nll_N, truth_N, said_N = ask(params)
      columns = {'truth': truth_N, 'said': said_N}
      return {'heldout_loss': float(nll_N.mean())} | {
          f'heldout_{name}': FIGURES[name](columns) for name in ('accuracy', 'weighted_f1', 'macro_f1')}

    return judged


def heldout(split: LabelledSplit, length: int, rows: int | None = None) -> list[Row]:
  """Each text of a split once, in rows of `length` tokens, or so many of the rows, evenly spread.

  `item` i32[length] counts the judged tokens of the split in their order. Raises: DataError if there is none.
  """
  if split.mask is None:
    raise DataError('data.no-heldout', f'{split.split} texts in {split.folder}', 'there is none',
                    'add texts, lower heldout_modulo of the corpus, or say which are held out: heldout_as')
  starts, items = split.offsets[:-1], np.cumsum(split.mask, dtype=np.int32) - 1
  plan = WholePlan(np.diff(split.offsets), length - 1)
  count = plan.rows if rows is None else min(rows, plan.rows)
  chosen = [plan.spans(0, i * plan.rows // count) for i in range(count)]
  return [split.row(spans, starts, length - 1) | {'item': lay(spans, items, starts, length - 1)} for spans in chosen]


class Answers(NamedTuple):
  """Of each judged token, in the order of the split: nats f64[N], true and predicted class i32[N]."""

  nll_N: np.ndarray
  truth_N: np.ndarray
  said_N: np.ndarray


class Ask:
  """Asks a model for the classes of the same rows again and again, `batch` rows at a time."""

  def __init__(self, model: Model, rows: list[Row], batch: int):
    self.lots = list(lots({name: np.stack([row[name] for row in rows]) for name in rows[0]}, batch))
    self.say = said(model)

  def __call__(self, params: Params) -> Answers:
    found = jax.device_get([self.say(params, lot) for lot in self.lots])
    judged = [lot['mask'] > 0 for lot in self.lots]

    def taken(columns) -> np.ndarray:
      return np.concatenate([column[seen] for column, seen in zip(columns, judged)])

    order = np.argsort(taken(lot['item'] for lot in self.lots))
    return Answers(taken(each.nll_BL for each in found).astype(np.float64)[order],
                   taken(lot['targets'] for lot in self.lots)[order], taken(each.class_BL for each in found)[order])
