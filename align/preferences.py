"""Preference pairs: two answers of which one was found the better, given as such or derived from people's ratings.

    {"prompt": "Hi", "chosen": "Hello!", "rejected": "What?"}                                     a line of `PairLines`
    {"messages": [...], "chosen": [...], "rejected": [...], "margin": 2.5, "label": 0.9}          the same in full

A pair that is given is a document, as a conversation is one (`align.conversations`), so that a corpus reads, counts and
keeps it. How the documents of a corpus become pairs is a value:

    Given()      each document is a pair. A hash of its prompt holds it out, so no prompt is in both splits
    Rated()      two conversations on one topic, of which people liked one better. The corpus holds conversations out, and
                 pairs are made within a split, so no conversation is in both

What people prefer is what they agree on, not truth; a margin is in the units of whoever judged.
"""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

from align.conversations import WHOLE, Messages, check_answers, from_text, messages_in, to_text
from model.chat import Message, Role
from model.errors import ConfigError, DataError
from train.data.corpus import Corpus
from train.data.decontaminate import Decontaminate
from train.data.document import SPLITS, Document, Split, held_out
from train.data.files import whole
from train.data.readers import Lines, parse, text_in
from train.data.shuffle import key, permutation
from train.data.stage import InOrder

FIELDS = ('prompt', 'messages', 'chosen', 'rejected', 'margin', 'label')


class Pair(NamedTuple):
  """Two continuations of a prompt. `label` is the probability that the chosen one is the better."""

  prompt: Messages
  chosen: Messages
  rejected: Messages
  margin: float = 0.0          # by how much it is better, in units of the judge
  label: float = 1.0


def pair_text(pair: Pair) -> str:
  """A pair as the text of a document; equal pairs give equal bytes."""
  sides = {name: [message._asdict() for message in getattr(pair, name)] for name in ('prompt', 'chosen', 'rejected')}
  return json.dumps(sides | {'margin': pair.margin, 'label': pair.label}, ensure_ascii=False, separators=(',', ':'))


def pair_in(record: dict[str, Any], where: str) -> Pair:
  """The pair of a record.

  Raises: DataError that names the field: one that is unknown, missing or of another kind, a side without an answer, two
  sides that are alike, a margin below 0, a label that is no probability.
  """
  if unknown := sorted(record.keys() - set(FIELDS)):
    raise DataError('pair.unknown-field', f'{where}: {", ".join(unknown)}', f'a pair has {", ".join(FIELDS)}',
                    'remove it: what is not understood would be lost')
  pair = Pair(prompt_in(record, where), answer_in(record, 'chosen', where), answer_in(record, 'rejected', where),
              _number(record, 'margin', 0.0, math.inf, 0.0, where), _number(record, 'label', 0.0, 1.0, 1.0, where))
  if pair.chosen == pair.rejected:
    raise DataError('pair.alike', where, 'both sides say the same, so neither is the better', 'mend or remove it')
  return pair


def prompt_in(record: dict[str, Any], where: str) -> Messages:
  """The prompt, from the field `prompt` or `messages`. Raises: DataError unless there is exactly one of them, and not empty."""
  if ('prompt' in record) == ('messages' in record):
    raise DataError('pair.no-prompt', where, 'it has both a prompt and messages, or neither', 'give one of the two')
  name = 'prompt' if 'prompt' in record else 'messages'
  messages = _messages(record, name, 'user', where)
  if not messages:
    raise DataError('chat.empty', f'{where}: field {name!r}', 'it has no messages', 'add what was asked')
  return messages


def answer_in(record: dict[str, Any], name: str, where: str) -> Messages:
  """The answer in a field. Raises: DataError if it holds no answer, or an empty one."""
  messages = _messages(record, name, 'assistant', where)
  check_answers(messages, f'{where}: field {name!r}')
  return messages


def _messages(record: dict[str, Any], name: str, role: Role, where: str) -> Messages:
  """The messages of a field: a list of them, or the text of one."""
  if isinstance(record.get(name), list):
    return messages_in(record[name], f'{where}: field {name!r}')
  return (Message(role, whole(text_in(record, name, where), where)),)


def _number(record: dict[str, Any], name: str, least: float, most: float, default: float, where: str) -> float:
  value = record.get(name, default)
  if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not least <= value <= most:
    raise DataError('pair.bad-number', f'{where}: field {name!r} is {value!r:.60}',
                    f'it is a number from {least:g} to {most:g}', 'mend it, or leave the field out')
  return float(value)


@dataclass(frozen=True)
class PairLines(Lines):
  """One pair for each line: `{"messages" or "prompt", "chosen", "rejected"}`, and perhaps `"margin"` and `"label"`."""

  _: KW_ONLY
  source: str = 'pairs'

  def document(self, record: dict, name: str, where: str) -> Document:
    return Document(pair_text(pair_in(record, where)), self.source, name)


class Prompted(Protocol):
  """Whatever has a prompt: a pair or a label."""

  @property
  def prompt(self) -> Messages: ...


Said = TypeVar('Said', bound=Prompted)


def by_prompt(corpus: Corpus, folder: Path, split: Split,
              read: Callable[[dict[str, Any], str], Said]) -> Iterator[tuple[str, Said]]:
  """(source:id, what `read` makes of it) for the documents of a split; a hash of the prompt alone says which split it is."""
  for document in (document for part in SPLITS for document in corpus.documents(folder, part)):
    where = f'{document.source}:{document.id}'
    found = read(parse(document.text, where), where)
    if held_out(to_text(found.prompt), corpus.heldout_modulo) == (split == 'heldout'):
      yield where, found


@dataclass(frozen=True)
class Given:
  """Each document of the corpus is a pair."""

  stages: ClassVar = (InOrder, Decontaminate)

  def __call__(self, corpus: Corpus, folder: Path, split: Split, counts: Counter[str]) -> Iterator[tuple[str, Pair]]:
    """(id, pair) for each document. Raises: DataError for a document that is no pair."""
    for found in by_prompt(corpus, folder, split, pair_in):
      counts['pairs read'] += 1
      yield found


class Talk(NamedTuple):
  """A conversation with its mean rating."""

  id: str
  turns: Messages
  rating: float


@dataclass(frozen=True)
class Rated:
  """Two conversations with the same opening (the system message), whose mean ratings differ by `gap` or more.

  Left out are conversations of fewer than `least` messages, and those whose ratings are all at the slider's `default`. No
  conversation is in more than `cap` pairs; which of its pairs are taken depends on the topic and the seed alone. The margin is
  the difference of the means.
  """

  gap: float = 2.0
  least: int = 6
  cap: int = 8
  ratings: tuple[str, ...] = ('witty', 'upbeat', 'interesting')
  default: float = 5.0
  seed: int = 0

  stages: ClassVar = WHOLE

  def __post_init__(self):
    if self.gap <= 0 or self.least < 1 or self.cap < 1 or not self.ratings:
      raise ConfigError('config.out-of-range', f'{self}', 'a pair has a better side, a conversation messages and ratings',
                        'use a gap above 0, and 1 or more of least, cap and ratings')

  def __call__(self, corpus: Corpus, folder: Path, split: Split, counts: Counter[str]) -> Iterator[tuple[str, Pair]]:
    """Raises: DataError for a document that is no conversation, or a rating that is no number."""
    topics: defaultdict[Messages, list[Talk]] = defaultdict(list)
    for document in corpus.documents(folder, split):
      counts['conversations read'] += 1
      where = f'{document.source}:{document.id}'
      messages = from_text(document.text, where)
      opening = messages[:1] if messages and messages[0].role == 'system' else ()
      turns, ratings = messages[len(opening):], self._rated(document, where)
      if reason := self._unfit(opening, turns, ratings):
        counts[f'conversations left out: {reason}'] += 1
      else:
        topics[opening].append(Talk(where, turns, fmean(ratings)))
    for opening, talks in topics.items():
      yield from ((f'{better.id} > {worse.id}', Pair(opening, better.turns, worse.turns, better.rating - worse.rating))
                  for better, worse in self._pairs(opening, talks, counts))

  def _rated(self, document: Document, where: str) -> list[float]:
    said = [document.meta[name] for name in self.ratings if name in document.meta]
    try:
      values = [float(value) for value in said]
    except ValueError:
      values = [math.nan]
    if not all(map(math.isfinite, values)):
      raise DataError('pair.bad-rating', f'{where}: rated {", ".join(said)}', 'not all of these are numbers', 'mend it')
    return values

  def _unfit(self, opening: Messages, turns: Messages, ratings: list[float]) -> str:
    """Why a conversation is left out; '' if it is not."""
    roles = [message.role for message in turns]
    if not opening:
      return 'no opening'
    if roles.count('user') + roles.count('assistant') < self.least or 'assistant' not in roles:
      return f'fewer than {self.least} turns'
    if len(ratings) < len(self.ratings):
      return 'not rated'
    return 'the slider was never moved' if all(rating == self.default for rating in ratings) else ''

  def _pairs(self, opening: Messages, talks: list[Talk], counts: Counter[str]) -> Iterable[tuple[Talk, Talk]]:
    """(better, worse), each conversation in at most `cap` of them."""
    able = [(one, two) for one in talks for two in talks if one.rating - two.rating >= self.gap and one.turns != two.turns]
    used: Counter[str] = Counter()
    for place in permutation(key(self.seed, 'pairs', to_text(opening)), len(able)):
      better, worse = able[place]
      if max(used[better.id], used[worse.id]) < self.cap:
        used.update((better.id, worse.id))
        yield better, worse
    counts['conversations left out: no partner so much better or worse'] += sum(not used[talk.id] for talk in talks)
    counts['conversations paired'] += sum(used[talk.id] > 0 for talk in talks)
    counts[f'pairs left out: a conversation is in {self.cap} already'] += len(able) - used.total() // 2
