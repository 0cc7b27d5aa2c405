"""A teacher's likeliest next tokens, computed once and stored: no teacher is in memory while a student learns.

    logits = StoredLogits(name='teacher-logits', by=teacher, tokens=tokens, length=256, k=32)
    Run(rows=TaughtRows(logits), objective=Distil(Stored()), ...)

A teacher's prediction depends on its context, so rows must be the same in every epoch: documents are packed by `Whole`, and one
that is longer than a row is cut where the student's is. The folder has for the training tokens

    train.teacher_ids.npy     u16 or u32[tokens, K]: the likeliest next ids after each token, the likeliest first
    train.teacher_logps.npy   f16 or f32[tokens, J]: their log-probs, nats; with a `Bucket`, last the log of all others' mass
    logits.json               the sha256 of the tokens, and of all of this

Letters: B rows, L positions, T tokens, V vocabulary, K ids, J = K + 1 with a bucket, K without.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from model.decoder import Model
from model.errors import ConfigError, DataError
from train.artifact import Artifact, Store, how, read_json, write_json
from train.data.pack import Plan, Span, Whole, lay
from train.data.token_files import TokenSplit
from train.data.tokens import TokenFiles
from train.data.visits import Row
from train.distil import IDS, LOGPS, check_teacher
from train.run import Parent
from train.trained import load
from train.types import Params

MARKS = 'logits.json'
NOTHING = -1e4                     # the log of no mass at all: float16 can hold it


@dataclass(frozen=True)
class Bucket:
  """All other ids are one further outcome: the student learns their total probability, and not how it is spread."""


@dataclass(frozen=True)
class Renormalised:
  """The probabilities of the kept ids are scaled up to sum to 1: the student does not learn how much lies outside."""


@dataclass(frozen=True)
class TaughtSplit(TokenSplit):
  """Training tokens with what the teacher predicted after each of them, open."""

  teacher_ids: np.ndarray = field(kw_only=True)        # [T, K]
  teacher_logps: np.ndarray = field(kw_only=True)      # [T, J]
  mark: str = field(kw_only=True)

  @property
  def sha256(self) -> str:
    return self.mark

  def row(self, spans: list[Span], starts: np.ndarray, length: int) -> Row:
    """As `TokenSplit.row`, and teacher_ids i32[length + 1, K], teacher_logps f32[length + 1, J]; 0 on padding."""
    columns = {IDS: lay(spans, self.teacher_ids, starts, length).astype(np.int32),
               LOGPS: lay(spans, self.teacher_logps, starts, length).astype(np.float32)}
    return super().row(spans, starts, length) | columns


@dataclass(frozen=True, kw_only=True)
class StoredLogits(Artifact):
  """The `k` likeliest next ids by the model of `by` after every training token, read in rows of `length`."""

  by: Parent
  tokens: TokenFiles
  length: int
  k: int = 32
  temperature: float = 1.0
  rest: Bucket | Renormalised = Bucket()
  kept: Literal['float16', 'float32'] = 'float16'
  batch: int = how(8)              # rows at a time

  def __post_init__(self):
    if min(self.length, self.batch) < 1 or not self.temperature > 0:
      raise ConfigError('config.out-of-range', f'length = {self.length}, batch = {self.batch}, temperature = '
                        f'{self.temperature}', 'they count tokens and rows, and a temperature is above 0', 'raise it')
    if not 1 <= self.k <= self.by.model.vocab:
      raise ConfigError('distil.too-many-ids', f'k = {self.k}', f'{self.by.name} tells {self.by.model.vocab} ids apart',
                        f'use 1 to {self.by.model.vocab}')
    check_teacher(self.by, self.tokens.vocabulary, self.length)

  def price(self) -> dict[str, str]:
    """The bytes on disk of each token."""
    one = self.k * (2 if self.by.model.vocab <= 1 << 16 else 4) + self._outcomes() * np.dtype(self.kept).itemsize
    return {'disk': f'{one} bytes a token of {self.tokens.name}'}

  def make(self, folder: Path, store: Store) -> None:
    """Runs the teacher over all rows. Raises: DataError if the tokens have changed."""
    trained, split = load(self.by, store), self.tokens.open(store, 'train')
    small = np.dtype('<u2' if trained.model.config.vocab <= 1 << 16 else '<u4')
    arrays = [np.lib.format.open_memmap(folder / name, 'w+', kind, (len(split.ids), count)) for name, kind, count in
              ((_ids(folder), small, self.k), (_logps(folder), np.dtype(self.kept), self._outcomes()))]
    ask = asker(trained.model, self.k, self.temperature, isinstance(self.rest, Bucket))
    for lot in lots(split, Whole().plan(np.diff(split.offsets), self.length, 0), self.length, self.batch):
      found = jax.device_get(ask(trained.params, *_read(split, lot, self.length, self.batch)))
      for spans, *columns in zip(lot, *found):
        for array, column in zip(arrays, columns):
          put(array, spans, split.offsets, column)
    for array in arrays:
      array.flush()
    write_json(folder / MARKS, {'tokens': split.sha256, 'sha256': _mark(split.sha256, *arrays)})

  def _outcomes(self) -> int:
    return self.k + isinstance(self.rest, Bucket)

  def open(self, store: Store) -> TaughtSplit:
    """The training tokens with the teacher's columns, verified. Raises: DataError if any of it has changed."""
    split, folder = self.tokens.open(store, 'train'), store.find(self)
    try:
      marks, ids, logps = read_json(folder / MARKS), *(np.load(path, mmap_mode='r') for path in (_ids(folder), _logps(folder)))
    except (OSError, ValueError) as error:
      raise DataError('data.damaged', f'logits in {folder}: {error}', 'a file is missing or cannot be read',
                      'delete the folder and launch again to make it anew') from None
    if marks != {'tokens': split.sha256, 'sha256': _mark(split.sha256, ids, logps)}:
      raise DataError('data.changed', f'logits in {folder}', 'the tokens are not those that the teacher read, or its answers '
                      'not those that were written', 'delete the folder and launch again to make it anew')
    return TaughtSplit(**vars(split), teacher_ids=ids, teacher_logps=logps, mark=marks['sha256'])


Ask = Callable[[Params, np.ndarray, np.ndarray], tuple[jax.Array, jax.Array]]


def asker(model: Model, k: int, temperature: float, bucket: bool) -> Ask:
  """A jitted function of (params, tokens_BL, segments_BL): ids i32[B, L, K] and log-probs f32[B, L, J] of what comes next."""

  @jax.jit
  def ask(params: Params, tokens_BL: jax.Array, segments_BL: jax.Array) -> tuple[jax.Array, jax.Array]:
    x_BLD = model.hidden(params, tokens_BL, segments_BL).x_BLD
    return jax.lax.map(lambda x_LD: likeliest(model.logits(params, x_LD[None])[0] / temperature, k, bucket), x_BLD)

  return ask


@partial(jax.jit, static_argnums=(1, 2))
def likeliest(logits_LV: jax.Array, k: int, bucket: bool) -> tuple[jax.Array, jax.Array]:
  """The ids of the k largest logits of each row, i32[L, K], and log-probs: f32[L, K + 1], the last that of all others' mass,
  with a bucket; f32[L, K], renormalised, without."""
  logp_LV = jax.nn.log_softmax(logits_LV, -1)
  top_LK, ids_LK = jax.lax.top_k(logp_LV, k)
  if not bucket:
    return ids_LK, jax.nn.log_softmax(top_LK, -1)
  others_LV = jnp.put_along_axis(logp_LV, ids_LK, -jnp.inf, -1, inplace=False)
  rest_L1 = jnp.maximum(jax.nn.logsumexp(others_LV, -1, keepdims=True), NOTHING)
  return ids_LK, jnp.concatenate([top_LK, rest_L1], -1)


def lots(split: TokenSplit, plan: Plan, length: int, size: int) -> Iterator[list[list[Span]]]:
  """The spans of all rows, `size` rows at a time."""
  rows = (plan.spans(0, row) for row in range(plan.rows))
  while lot := list(islice(rows, size)):
    yield lot


def _read(split: TokenSplit, lot: list[list[Span]], length: int, size: int) -> tuple[np.ndarray, np.ndarray]:
  """The inputs of a lot, tokens and segments i32[size, length]; missing rows are padding."""
  rows = [split.row(spans, split.offsets, length) for spans in lot]
  return tuple(np.pad(np.stack([row[name][:-1] for row in rows]), ((0, size - len(rows)), (0, 0)))
               for name in ('tokens', 'segments'))  # type: ignore[return-value]


def put(array: np.ndarray, spans: list[Span], starts: np.ndarray, column: np.ndarray) -> None:
  """Writes the column of one row, [length, ...], to where the tokens of its spans stand in `array`."""
  used = 0
  for document, start, stop in spans:
    begin, size = int(starts[document]) + start, min(stop - start, len(column) - used)      # no row foretells after its last
    array[begin:begin + size] = column[used:used + size]
    used += size


def _ids(folder: Path) -> Path:
  return folder / 'train.teacher_ids.npy'


def _logps(folder: Path) -> Path:
  return folder / 'train.teacher_logps.npy'


def _mark(tokens: str, *arrays: np.ndarray) -> str:
  """The sha256 of the tokens' own sha256 and of the arrays."""
  hashed = hashlib.sha256(tokens.encode())
  for array in arrays:
    hashed.update(f'{array.dtype.str}{array.shape}'.encode())
    hashed.update(np.ascontiguousarray(array).view(np.uint8).data)
  return hashed.hexdigest()
