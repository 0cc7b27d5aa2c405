"""Augmentation by paraphrase: copies of training documents in which a model puts some sentences in other words.

The model is a value that opens to a function of texts, so any writer fits: a trained run of this project, or a rule.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from train.artifact import Store
from train.data.augment import check_shares, draws, with_copies
from train.data.document import Document
from train.data.stage import Batched, Outcome

# sentences and the white space between them, which add up to the text; a mark inside a word or number ends no sentence
SENTENCE = re.compile(r'\s+|\S(?:[^.!?\n]|[.!?](?=\w))*[.!?]*["\u201d\u2019)]{0,3}')

Write = Callable[[list[str], list[int]], list[str]]     # spans and a seed for each -> the spans in other words


@runtime_checkable
class Rewriter(Protocol):
  """A frozen dataclass that names a writer; its artifacts (a trained run, say) are among its fields."""

  def open(self, store: Store) -> Write:
    """The writer itself: one text for each span, a function of the span and its seed alone."""
    ...


@dataclass(frozen=True)
class Rewrite(Batched):
  """Adds a copy of each training document in which a `share` of the sentences is rewritten."""

  rewriter: Rewriter
  share: float = 0.3
  seed: int = 0

  def __post_init__(self):
    check_shares(share=self.share)

  def open(self, store: Store) -> Callable[[list[Document]], list[Outcome]]:
    write = self.rewriter.open(store)

    def rewrite(documents: list[Document]) -> list[Outcome]:
      marked = [self._marked(document) for document in documents]
      spans = [(part, seed) for parts in marked for part, seed in parts if seed is not None]
      written = iter(write([span for span, _ in spans], [seed for _, seed in spans]) if spans else [])
      texts = [''.join(part if seed is None else next(written) for part, seed in parts) for parts in marked]
      return [with_copies(document, [text], 'rewritten') for document, text in zip(documents, texts)]
    return rewrite

  def _marked(self, document: Document) -> list[tuple[str, int | None]]:
    """The parts of the text; those to be rewritten have a seed."""
    random = draws(self.seed, 'rewrite', 0, document.id)
    parts = []
    for part in SENTENCE.findall(document.text):
      chosen = part.strip() and random.random() < self.share
      parts.append((part, int(random.random() * 2**31) if chosen else None))
    return parts
