"""What the operations of a profiled program are, read from the profiler's own file: no TensorFlow, no protobuf classes.

`*.xplane.pb` holds beside all events the compiled programs, as XLA's HloProto. Of that little is wanted, and the wire format
of protocol buffers is little work: a message is a row of (field, value), and a value is a number or so many bytes. Field
numbers are those of xplane.proto and hlo.proto; they cannot change without breaking every profile that was ever kept.
"""

from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import Literal, NamedTuple

Kind = Literal['matmul', 'kernel', 'collective', 'elementwise']
PRODUCTS = {'dot', 'convolution', 'ragged-dot'}
COLLECTIVES = ('all-reduce', 'all-gather', 'all-to-all', 'collective-permute', 'reduce-scatter', 'collective-broadcast')
# In the target of a custom call, or in the name of an operation or of a GPU's kernel.
LIBRARIES = ('gemm', 'matmul', 'cublas', 'cutlass', 'nvjet', 'xmma', '$conv', 'onednn')


class Operation(NamedTuple):
  """One operation of a program; `source` is the path of its function in JAX, '' where XLA made it."""

  kind: Kind
  source: str = ''


class Program(NamedTuple):
  """A compiled program: its name, which others may have too, and its operations by theirs."""

  name: str
  operations: dict[str, Operation]


def programs(path: Path) -> list[Program]:
  """All programs in an xplane file."""
  planes = [plane for plane in _all(path.read_bytes(), 1) if b'/host:metadata' in _all(plane, 2)]
  events = [event for plane in planes for entry in _all(plane, 4) for event in _all(entry, 2)]
  protos = [_bytes(stat, 6) for event in events for stat in _all(event, 5)]
  return [_program(_bytes(proto, 1)) for proto in protos if proto]


def of_names(known: Sequence[Program], name: str, names: Set[str]) -> dict[str, Operation]:
  """The operations of the program of that name to which most of these belong; none where it is not there."""
  mine = [program.operations for program in known if program.name == name]
  return max(mine, key=lambda operations: len(names & operations.keys()), default={})


def guessed(name: str) -> Operation:
  """What an operation is by its name alone, where its program was not kept."""
  if name.startswith((*COLLECTIVES, 'nccl')):
    return Operation('collective')
  return Operation('matmul' if name.startswith('dot') or any(word in name.lower() for word in LIBRARIES) else 'elementwise')


def _program(module: bytes) -> Program:
  computations = {_number(computation, 5): _all(computation, 2) for computation in _all(module, 3)}
  return Program(_text(module, 1), {
    _text(each, 1): Operation(_kind(each, computations), _text(_bytes(each, 7), 2))
    for instructions in computations.values() for each in instructions})


def _kind(instruction: bytes, computations: dict[int, list[bytes]]) -> Kind:
  """A fusion is a product where it holds one."""
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
  """A number and where it ends: seven bits a byte, the lowest first, the eighth says that more follow."""
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
  """Numbers of a repeated field, written one by one or packed."""
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
