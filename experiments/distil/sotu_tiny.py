"""Distillation of the quick start's model into a smaller one, in a few minutes on two CPU cores.

  python -m experiments.launch --config=experiments/distil/sotu_tiny.py
  python -m experiments.launch --config=experiments/distil/sotu_tiny.py --config.objective='NextToken()'

The second command is the control: the same model from the same initial parameters, on the same batches, without a teacher. The
teacher, `experiments/quickstart/pretrain.py`, is trained first if it is not there.

Result (2026-11-27, two cores shared with many other processes: 5 min 50 s with the teacher, 2 min 26 s without; one seed):
after 300 steps the loss on 64 held-out rows is 1.628 bits a byte (4.117 nats a token) with the teacher and 1.733 (4.384)
without; after 200 steps 1.711 and 1.817. The teacher, with 4.6 times as many parameters and 800 steps, has 1.403. Student and
teacher agree on the most likely token in 55% of the last batch. The comparison is at equal steps, not compute: a step with the
teacher takes 2.5 times as many FLOPs.
"""

from dataclasses import replace

from experiments.quickstart.pretrain import VOCABULARY
from experiments.quickstart.pretrain import get_config as teacher
from model.sizes import llama
from train.distil import Distil
from train.run import Run, Saving, Watch


def get_config() -> Run:
  return replace(teacher(), name='sotu-student', model=llama(VOCABULARY.size, width=64, layers=2, count=2), steps=300,
                 objective=Distil(teacher(), temperature=2.0, hard=0.5), watch=Watch(heldout=100, heldout_rows=64),
                 saving=Saving(every=0))
