"""litgpt's GPT at a GPU's sizes: `python -m experiments.bench.gpu.lit FOLDER TASK DTYPE eager|compiled [compile]`.

With `compile` it takes its first steps from parameters of its own, which leaves what torch.compile keeps in its cache.
"""

import sys
from pathlib import Path

from experiments.bench.peers import lit
from experiments.bench.peers.torch_step import TorchTrain
from experiments.bench.task import TASKS
from experiments.bench.worker import serve

if __name__ == '__main__':
  folder, name, dtype, form, *only = sys.argv[1:]
  lit.TASK = TASKS[name]               # what that peer builds; on a CPU it knows one size
  program = lit.LitGPT(Path(folder), dtype, form)
  if only:
    TorchTrain.prepare(program)
  else:
    serve(program)
