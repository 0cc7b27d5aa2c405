"""The static facts of a call of attention, from which an implementation is chosen; tests state them for other machines."""

from typing import NamedTuple

from kernels.ranges import Kind


class Call(NamedTuple):
  """What decides which implementations can do a call, and which is preferred."""

  queries: int                        # L
  keys: int                           # S
  head_size: int
  dtype: str
  kind: Kind
  softcap: float | None
  platform: str                       # cpu, gpu, tpu
  capability: float = 0.0             # of an NVIDIA GPU: 8.0 is an A100, 9.0 an H100
  devices: int = 1                    # over which the compiler partitions the call
