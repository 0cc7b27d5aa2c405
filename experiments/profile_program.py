"""Kinds and sources of the operations of a profiled program, read from `*.xplane.pb` without TensorFlow or protobuf classes.

The file holds, beside the events, the compiled programs as XLA's HloProto. Only a few fields are needed, so the protobuf wire
format is decoded here: a message is a sequence of (field number, value), a value a number or bytes. The field numbers are those
of xplane.proto and hlo.proto, which are stable: a change would break all stored profiles.
"""

from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import Literal, NamedTuple

Kind = Literal['matmul', 'kernel', 'collective', 'elementwise']
PRODUCTS = {'dot', 'convolution', 'ragged-dot'}
COLLECTIVES = ('all-reduce', 'all-gather', 'all-to-all', 'collective-permute', 'reduce-scatter', 'collective-broadcast')
# Names of matmul libraries, as found in the target of a custom call or in the name of an operation or GPU kernel.
LIBRARIES = ('gemm', 'matmul', 'cublas', 'cutlass', 'nvjet', 'xmma', '$conv', 'onednn')


class Operation(NamedTuple):
  """One operation; `source` is its JAX name stack (functions and primitive), '' where XLA created it."""

  kind: Kind
  source: str = ''


class Program(NamedTuple):
  """A compiled program: its name, which need not be unique, and its operations by name."""

  name: str
  operations: dict[str, Operation]


def programs(path: Path) -> list[Program]:
  """All programs in an xplane file."""
  planes = [plane for plane in _all(path.read_bytes(), 1) if b'/host:metadata' in _all(plane, 2)]
  events = [event for plane in planes for entry in _all(plane, 4) for event in _all(entry, 2)]
  protos = [_bytes(stat, 6) for event in events for stat in _all(event, 5)]
  return [_program(_bytes(proto, 1)) for proto in protos if proto]


def of_names(known: Sequence[Program], name: str, names: Set[str]) -> dict[str, Operation]:
  """The operations of the program of that name that shares the most names with `names`; {} where there is none."""
  mine = [program.operations for program in known if program.name == name]
  return max(mine, key=lambda operations: len(names & operations.keys()), default={})


def guessed(name: str) -> Operation:
  """An operation's kind guessed from its name, for when its program was not stored."""
  if name.startswith((*COLLECTIVES, 'nccl')):
    return Operation('collective')
  return Operation('matmul' if name.startswith('dot') or any(word in name.lower() for word in LIBRARIES) else 'elementwise')


def _program(module: bytes) -> Program:
  computations = {_number(computation, 5): _all(computation, 2) for computation in _all(module, 3)}
  return Program(_text(module, 1), {
    _text(each, 1): Operation(_kind(each, computations), _text(_bytes(each, 7), 2))
    for instructions in computations.values() for each in instructions})


def _kind(instruction: bytes, computations: dict[int, list[bytes]]) -> Kind:
  """The kind of an instruction; a fusion has that of its contents, with collectives before matmuls before kernels."""
  opcode, target = _text(instruction, 2), _text(instruction, 28).lower()
  if opcode.startswith(COLLECTIVES):
    return 'collective'
  if opcode in PRODUCTS or (opcode == 'custom-call' and any(word in target for word in LIBRARIES)):
    return 'matmul'
  if opcode == 'custom-call':
    return 'kernel'
  inner = [each for called in _numbers(instruction, 38) for each in computations.get(called, [])] if opcode == 'fusion' else []
  kinds = {_kind(each, computations) for each in inner}
  return next((kind for kind in ('collective', 'matmul', 'kernel') if kind in kinds), 'elementwise')  # type: ignore[return-value]


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
  at = 0
  while at < len(message):
    key, at = _varint(message, at)
    if key & 7 == 0:
      value, at = _varint(message, at)
      yield key >> 3, value
      continue
    size, at = _varint(message, at) if key & 7 == 2 else ({1: 8, 5: 4}[key & 7], at)
    yield key >> 3, message[at:at + size]
    at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
  """(number, position after it): seven bits a byte, lowest first; the eighth bit says that another byte follows."""
  value = shift = 0
  while True:
    byte = message[at]
    value, at, shift = value | (byte & 127) << shift, at + 1, shift + 7
    if byte < 128:
      return value, at


def _all(message: bytes, field: int) -> list[bytes]:
  return [value for number, value in _fields(message) if number == field and isinstance(value, bytes)]


def _bytes(message: bytes, field: int) -> bytes:
  return next(iter(_all(message, field)), b'')


def _text(message: bytes, field: int) -> str:
  return _bytes(message, field).decode(errors='replace')


def _numbers(message: bytes, field: int) -> list[int]:
  """The numbers of a repeated field, packed or not."""
  found: list[int] = []
  for number, value in _fields(message):
    if number == field and isinstance(value, int):
      found.append(value)
    elif number == field and isinstance(value, bytes):
      at = 0
      while at < len(value):
        one, at = _varint(value, at)
        found.append(one)
  return found


def _number(message: bytes, field: int) -> int:
  return next(iter(_numbers(message, field)), 0)
