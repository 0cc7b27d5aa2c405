"""Distillation of SmolLM2-135M into ten of its thirty layers, on 10,000 film reviews, on one GPU.

  python -m experiments.launch --config=experiments/distil/smollm2.py

The student starts from ten layers of its teacher, evenly spaced from 0 to 29, with 64 million parameters. The data are those of
`experiments/smollm2/lora.py`, with the loss on answers only. Not run yet on a GPU; `smollm2_tiny.py` is the same in minutes on
a CPU.
"""

from experiments.smollm2.chat import get_config as smollm2
from experiments.smollm2.lora import get_config as reviews
from model.layers import TakeLayers
from train.distil import Distil
from train.optimizer import AdamW, Optimizer
from train.run import Run, Saving, Watch
from train.schedule import Linear


def get_config() -> Run:
  teacher = smollm2()
  student = TakeLayers.spread(10, of=teacher.model.layers)
  return Run(name='smollm2-student', model=student.model(teacher.model), restore=teacher, edits=(student,),
             rows=reviews().rows, objective=Distil(teacher, hard=0.1), batch=32, steps=1000,
             optimizer=Optimizer(AdamW(lr=3e-4), Linear(warmup=50)), watch=Watch(heldout=100, heldout_rows=64),
             saving=Saving(every=200))
