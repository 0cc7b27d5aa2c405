"""How often a model's answers go wrong, by class, each with its denominator."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

LONGEST_PHRASE, REPEATS, LEAST = 32, 4, 16
LOOP_RULE = (f'the same phrase of 1 to {LONGEST_PHRASE} tokens at least {REPEATS} times in a row, '
             f'over at least {LEAST} tokens')


@dataclass(frozen=True)
class Output:
  """One generated answer: its token ids, its text, the log-probability of each id, and why it ended: 'eos', 'stop' or
  'length'."""

  ids: Sequence[int]
  text: str
  logps: Sequence[float]
  reason: str


def loops(ids: Sequence[int]) -> bool:
  """Whether the ids hold a loop by LOOP_RULE: a stretch all along which ids[i] == ids[i - p] for one p."""
  array = np.asarray(ids)
  return any(_longest_run(array[phrase:] == array[:-phrase]) + phrase >= max(REPEATS * phrase, LEAST)
             for phrase in range(1, min(LONGEST_PHRASE, len(array) // REPEATS) + 1))


def _longest_run(same: np.ndarray) -> int:
  """The length of the longest stretch of True."""
  breaks = np.flatnonzero(~np.concatenate([[False], same, [False]]))
  return int(np.diff(breaks).max()) - 1


@dataclass(frozen=True)
class Class:
  """A way to go wrong: its name, the rule in words, and the rule."""

  name: str
  rule: str
  holds: Callable[[Output], bool]


CLASSES = (
  Class('empty', 'no text but white space', lambda output: not output.text.strip()),
  Class('cut off', 'the limit of new tokens came before the end token or a stop sequence',
        lambda output: output.reason == 'length'),
  Class('repetition loop', LOOP_RULE, lambda output: loops(output.ids)),
  Class('non-finite', 'a log-probability is NaN or infinite',
        lambda output: not np.isfinite(np.asarray(output.logps, np.float64)).all()),
)


def count(outputs: Sequence[Output]) -> list[dict]:
  """A row a class: {name, rule, count, of, rate, at_most}. An output may be in several classes.

  `at_most` is the upper end of the two-sided 95% Wilson interval of the rate (Wilson, 1927), so that 0 of 16 does not
  read like never.
  """
  rows = []
  for each in CLASSES:
    hits = sum(each.holds(output) for output in outputs)
    rows.append({'name': each.name, 'rule': each.rule, 'count': hits, 'of': len(outputs),
                 'rate': hits / len(outputs) if outputs else None, 'at_most': wilson_upper(hits, len(outputs))})
  return rows


def wilson_upper(hits: int, of: int) -> float | None:
  """The upper end of Wilson's interval for a share of `hits` in `of`; None where there is nothing to divide by."""
  if not of:
    return None
  share, z = hits / of, 1.959964
  middle = share + z * z / (2 * of)
  half = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
  return min(1.0, (middle + half) / (1 + z * z / of))
