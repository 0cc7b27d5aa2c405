"""`muon.py` at a size that two CPU cores can do: a million parameters, and still 32k tokens a step.

  python -m experiments.sweep --config=experiments/sweeps/muon_tiny.py

Result (2026-11-28, one seed): AdamW has 4.976 nats after 160 steps at its best rate, 0.032, and little more from 0.004 on; Muon
has as much after 37 steps, and 3.992 after 120, at 0.016, the highest that it was given (docs/muon.png). So few steps are
mostly the way down from the frequencies of tokens, 5.95 nats, where AdamW waits 40 steps: a longer training may differ less.
"""

from dataclasses import replace

from experiments.grid import Trials
from experiments.sweeps import muon
from model.config import RMSNorm
from model.sizes import llama
from train.data.rows import Rows
from train.data.tokens import Tokens
from train.data.vocabulary import Vocabulary
from train.optimizer import AdamW, Optimizer
from train.run import Run, Watch
from train.schedule import WSD

STEPS = 160
RATES = (*muon.RATES, 3.2e-2)
VOCABULARY = Vocabulary(name='prose-bpe', corpus=muon.CORPUS, size=1024)
TOKENS = Tokens(name='prose-tokens', corpus=muon.CORPUS, vocabulary=VOCABULARY)
draw = muon.draw


def get_config() -> Run:
  model = llama(VOCABULARY.size, width=128, layers=4, count=4)
  return replace(
      muon.get_config(), name='muon-tiny', model=replace(model, attention=replace(model.attention, qk_norm=RMSNorm())),
      rows=Rows(TOKENS, length=256), batch=128, parts=8, steps=STEPS,
      optimizer=Optimizer(AdamW(lr=4e-3), WSD(warmup=16, decay=0.6)),
      watch=Watch(heldout=20, heldout_rows=128))


def sweep() -> Trials:
  return muon.trials(STEPS, RATES)
