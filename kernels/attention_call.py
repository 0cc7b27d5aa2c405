"""What is known of a call of attention while tracing: enough to say who can do it, on a machine that is not here too."""

from typing import NamedTuple

from kernels.ranges import Kind


class Call(NamedTuple):
  """What decides who can do a call, and who should."""

  queries: int                        # L
  keys: int                           # S
  head_size: int
  dtype: str
  kind: Kind
  softcap: float | None
  platform: str                       # cpu, gpu, tpu
  capability: float = 0.0             # of an NVIDIA GPU: 8.0 is an A100, 9.0 an H100
  devices: int = 1                    # over which the compiler cuts it
