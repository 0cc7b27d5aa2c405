"""Stages of preparation: the three kinds, and what a stage answers about a document.

A stage is a frozen value. `Local` ones look at a single document and run in worker processes; `InOrder` ones compare
each document with those before it, in one process, over signatures that the workers made; `Batched` ones hand many
documents at once to something large, like a model.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from train.artifact import Store
from train.data.document import Document, size

Effect = Literal['kept', 'changed', 'dropped', 'added']


class Reason(NamedTuple):
  """Why something happened to a document, in how many places, and by how many bytes the corpus grew for it."""

  name: str
  places: int
  bytes: int


class Outcome(NamedTuple):
  """The result of a stage on one document: the documents that go on, and the reasons for what changed."""

  documents: tuple[Document, ...]
  effect: Effect = 'kept'
  reasons: tuple[Reason, ...] = ()


def kept(document: Document) -> Outcome:
  """The document goes on as it is."""
  return Outcome((document,))


def dropped(document: Document, reason: str) -> Outcome:
  """The document ends here."""
  return Outcome((), 'dropped', (Reason(reason, 1, -size(document.text)),))


def added(document: Document, documents: tuple[Document, ...], reason: str) -> Outcome:
  """The document became several."""
  if documents == (document,):
    return kept(document)
  grown = sum(size(d.text) for d in documents) - size(document.text)
  return Outcome(documents, 'added', (Reason(reason, len(documents) - 1, grown),))


Edit = Callable[[str], tuple[str, int]]       # the new text, and in how many places it changed


def edited(document: Document, edits: Mapping[str, Edit]) -> Outcome:
  """The document after each edit in turn; dropped if no text is left."""
  text, reasons = document.text, []
  for name, edit in edits.items():
    new, places = edit(text)
    if places:
      reasons.append(Reason(name, places, size(new) - size(text)))
    text = new
  if not text.strip():
    return dropped(document, 'nothing left')
  return Outcome((replace(document, text=text),), 'changed', tuple(reasons)) if reasons else kept(document)


@dataclass(frozen=True)
class Stage:
  """A step of preparation: a pure function of the documents, whatever the number of processes."""

  @property
  def name(self) -> str:
    """How the table calls it."""
    return type(self).__name__

  def files(self) -> list[Path]:
    """The files that it reads besides the documents, for the manifest."""
    return []


@dataclass(frozen=True)
class Local(Stage, ABC):
  """A stage that needs to see only one document."""

  @abstractmethod
  def open(self) -> Callable[[Document], Outcome]:
    """The function itself, with whatever it has to load; called once in each worker process."""


@dataclass(frozen=True)
class InOrder(Stage, ABC):
  """A stage that needs to know the documents before. It remembers a signature of each, in memory."""

  @abstractmethod
  def sign(self, document: Document) -> Any:
    """What is remembered of a document; runs in the workers."""

  @abstractmethod
  def open(self) -> Callable[[Any], str | None]:
    """A judge that is shown every signature in the stable order; gives the reason to drop the document, or None."""


@dataclass(frozen=True, kw_only=True)
class Batched(Stage, ABC):
  """A stage that works on `batch` documents at once, in the main process."""

  batch: int = 64

  @abstractmethod
  def open(self, store: Store) -> Callable[[list[Document]], list[Outcome]]:
    """The function itself; artifacts among its fields are found in the store."""
