"""The loss head by Liger's fused kernels (Hsu et al. 2024): `python -m experiments.bench.peers.liger TASK DTYPE`."""

import sys

from liger_kernel.ops.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyFunction as Fused

from experiments.bench.peers.torch_head import Head
from experiments.bench.task import TASKS, Task
from experiments.bench.worker import serve

REST = None, None, -100, 0.0, 0.0, 'mean', None, False      # its arguments as they are by themselves, up to the type of sums


class Liger(Head):
  """As the peer that holds all logits, of whose w [D, V] it takes the transpose; gradients of w are added up in float32."""

  def __init__(self, task: Task, dtype: str):
    super().__init__(task, dtype, 'eager')
    self.mean = lambda x, w, targets: Fused.apply(x, w.t().to(x.dtype).contiguous(), targets, *REST, w.dtype)[0]


if __name__ == '__main__':
  name, dtype = sys.argv[1:]
  serve(Liger(TASKS[name], dtype))
