"""SFT of the quick start's model on human conversations, in a minute or two on two CPU cores.

  python -m experiments.launch --config=experiments/sft/chitchat_tiny.py

Its parent, `experiments/quickstart/pretrain.py`, is trained first if it is not there. Then ask it something:

  python -m experiments.sample --run=runs/sotu-chitchat-... --prompt='What is your favourite food?'

Result (2026-11-27, two shared cores; corpus and tokens 14 s of CPU time, then 2 min 38 s): on all answers of the held-out
conversations, 128,214 tokens of 331,970 bytes, the loss falls from 5.537 nats a token (3.085 bits a byte) to 3.609 (2.011). It
still uses the vocabulary of presidents, and its answers make little sense: it has a million parameters, and trains for a ninth
of an epoch.
"""

from dataclasses import replace

from experiments.quickstart.pretrain import get_config as parent
from experiments.sft.chitchat import fine_tuned
from train.optimizer import AdamW, Muon, Optimizer
from train.run import Run, Saving, Watch
from train.schedule import WSD


def get_config() -> Run:
  return replace(
      fine_tuned(parent(), length=256),
      name='sotu-chitchat',
      batch=8,
      steps=300,
      optimizer=Optimizer(Muon(lr=5e-3, others=AdamW(lr=5e-3)), WSD(warmup=10, decay=0.7)),
      watch=Watch(heldout=100),
      saving=Saving(every=100),
  )
