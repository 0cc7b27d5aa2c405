"""Classification of held-out texts, or of their words, as a task.

    Evaluation(run=run, tasks=(TextClassification(name='r8', rows=run.rows),))
"""

import json
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from model.errors import ConfigError
from model.tokenizer import Tokenizer
from train.artifact import Store, digest, how
from train.data.class_rows import Answers, Ask, ClassRows, heldout
from train.data.labelled import LabelledSplit
from train.eval.task import Taken, Task
from train.run import Parent, Run
from train.trained import Trained


@dataclass(frozen=True, kw_only=True)
class TextClassification(Task):
  """On all that is held out of `rows`. A few mistakes are shown, the most confident first."""

  rows: ClassRows
  shown: int = how(6)
  batch: int = how(8)                    # rows at a time

  figures: ClassVar = ('weighted_f1', 'macro_f1', 'accuracy', 'loss')

  def check(self, run: Parent) -> None:
    """Raises: ConfigError unless the model has a head for these classes and reads these tokens."""
    if not isinstance(run, Run) or digest(run.vocabulary) != digest(self.rows.vocabulary):
      raise ConfigError('classes.vocabulary', f'task {self.name}: rows of {self.rows.vocabulary.name}',
                        f'{run.name} reads those of {run.vocabulary.name}, or has no head for classes',
                        'give the task the rows of the run')
    self.rows.check(run)

  def take(self, trained: Trained, store: Store) -> Taken:
    """Columns 'truth' and 'said', the numbers of classes; 'nll' in nats and 'tokens' (1 each)."""
    split = self.rows.tokens.open(store, 'heldout')
    found = Ask(trained.model, heldout(split, self.rows.length), self.batch)(trained.params)
    columns = {'truth': found.truth_N, 'said': found.said_N, 'nll': found.nll_N, 'tokens': np.ones(len(found.nll_N))}
    return Taken(_ids(split), columns, self.rows.tokens.classes, self._mistakes(split, found, trained.tokenizer))

  def _mistakes(self, split: LabelledSplit, found: Answers, tokenizer: Tokenizer) -> tuple[dict[str, str], ...]:
    wrong = np.flatnonzero(found.said_N != found.truth_N)
    worst = wrong[np.argsort(-found.nll_N[wrong], kind='stable')][:self.shown]
    labels = self.rows.tokens.classes
    return tuple({'question': _text(split, int(item), tokenizer), 'answer': labels[found.said_N[item]],
                  'wanted': labels[found.truth_N[item]]} for item in worst)


def _places(split: LabelledSplit) -> tuple[np.ndarray, np.ndarray]:
  """The token and the document of each item, i64[N] both."""
  assert split.mask is not None, 'labelled tokens are written with a mask'
  places_N = np.flatnonzero(split.mask)
  return places_N, np.searchsorted(split.offsets, places_N, 'right') - 1


def _ids(split: LabelledSplit) -> list[str]:
  """The id of each item: its document's, and which of its tokens it is if that is not the first."""
  with (split.folder / f'{split.split}.ids.jsonl').open() as lines:
    names = [json.loads(line) for line in lines]
  places_N, documents_N = _places(split)
  return [names[document] + (f':{place - split.offsets[document]}' if place > split.offsets[document] else '')
          for place, document in zip(places_N, documents_N)]


def _text(split: LabelledSplit, item: int, tokenizer: Tokenizer) -> str:
  """What was judged, as its tokens have it; of a word, where it begins and the text around it."""
  places_N, documents_N = _places(split)
  begin, end = split.offsets[documents_N[item]:documents_N[item] + 2]
  text = tokenizer.decode(split.ids[begin:end].tolist())
  return text if places_N[item] == begin else f'{tokenizer.decode([int(split.ids[places_N[item]])])}: {text}'
