"""Rows of tokens with the columns of a stored teacher: the feed for `Distil(Stored())`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from train.data.mixture import Schedule
from train.data.pack import Whole
from train.data.pipeline import Batches, Placement
from train.data.rows import Rows
from train.data.tokens import TokenFiles
from train.data.visits import Visits
from train.data.vocabulary import AnyVocabulary
from train.distil import Taught, check_head
from train.run import Run
from train.stored_logits import StoredLogits
from train.types import Evaluator, Form, Setting

if TYPE_CHECKING:
  from train.build import Built


@dataclass(frozen=True)
class TaughtRows(Taught):
  """A `train.types.Feed`: rows of tokens with the stored predictions of a teacher."""

  logits: StoredLogits
  seed: int = 0

  form: ClassVar[Form] = 'text'

  @property
  def tokens(self) -> TokenFiles:
    return self.logits.tokens

  @property
  def vocabulary(self) -> AnyVocabulary:
    return self.tokens.vocabulary

  @property
  def temperature(self) -> float:
    return self.logits.temperature

  @property
  def length(self) -> int:
    return self.logits.length

  @property
  def reads(self) -> int:
    return self.length

  def check(self, run: Run) -> None:
    """Raises: ConfigError if student and teacher have vocabularies of different sizes."""
    check_head(self.logits.by.model, run.model)

  def holds(self, run: Run, built: 'Built') -> dict[str, Any]:
    return {}

  def open(self, setting: Setting) -> Batches:
    placement = Placement(setting.built.mesh, setting.run.batch)
    visits = Visits([(self.logits.open(setting.store), None)], Schedule((1.0,)), Whole(), self.length, self.seed)
    return Batches(visits, setting.run.batch, rows=placement.rows, place=placement)

  def evaluator(self, setting: Setting, rows: int) -> Evaluator:
    """As for plain `Rows` of these tokens: on held-out rows there is no teacher."""
    return Rows(self.tokens, self.length, Whole(), seed=self.seed).evaluator(setting, rows)
