"""Augmentation kept away from the held-out documents: they are not copied, and no copy may land among them."""

from collections.abc import Callable
from dataclasses import dataclass

from model.errors import ConfigError
from train.artifact import Store
from train.data.document import Document, set_apart
from train.data.stage import Batched, Local, Outcome, Stage, added, kept


def spared(stage: Stage, modulo: int, by: str | None = None) -> Stage:
  """The augmentation, applied to training documents only. Raises: ConfigError for a stage that is no augmentation."""
  if isinstance(stage, Local):
    return SparedLocal(stage, modulo, by)
  if isinstance(stage, Batched):
    return SparedBatched(stage, modulo, by, batch=stage.batch)
  raise ConfigError('config.no-augmentation', f'augment has {stage.name}', 'it compares documents, and copies none',
                    'put it among the stages')


@dataclass(frozen=True)
class SparedLocal(Local):
  """A local augmentation that leaves held-out documents alone."""

  stage: Local
  modulo: int
  by: str | None = None

  @property
  def name(self) -> str:
    return self.stage.name

  def open(self) -> Callable[[Document], Outcome]:
    augment = self.stage.open()

    def spare(document: Document) -> Outcome:
      if set_apart(document, self.modulo, self.by):
        return kept(document)
      return _outside(document, augment(document), self.modulo, self.by)
    return spare


@dataclass(frozen=True)
class SparedBatched(Batched):
  """A batched augmentation that is not shown held-out documents."""

  stage: Batched
  modulo: int
  by: str | None = None

  @property
  def name(self) -> str:
    return self.stage.name

  def open(self, store: Store) -> Callable[[list[Document]], list[Outcome]]:
    augment = self.stage.open(store)

    def spare(documents: list[Document]) -> list[Outcome]:
      outside = [not set_apart(document, self.modulo, self.by) for document in documents]
      outcomes = iter(augment([document for document, train in zip(documents, outside) if train]))
      return [_outside(document, next(outcomes), self.modulo, self.by) if train else kept(document)
              for document, train in zip(documents, outside)]
    return spare


def _outside(document: Document, outcome: Outcome, modulo: int, by: str | None) -> Outcome:
  """The outcome without the copies that would be held out themselves."""
  if outcome.effect != 'added':
    return outcome
  fit = tuple(one for one in outcome.documents if one is document or not set_apart(one, modulo, by))
  return added(document, fit, outcome.reasons[0].name)
