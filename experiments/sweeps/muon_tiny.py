"""The comparison of `muon.py` at a size for two CPU cores: a million parameters, and also 32k tokens a step.

  python -m experiments.sweep --config=experiments/sweeps/muon_tiny.py

Result (2026-11-28, one seed): AdamW reaches 4.976 nats after 160 steps at its best rate, 0.032, and little more at all rates
from 0.004 on; Muon reaches that after 37 steps, and 3.992 after 120, at 0.016, its highest rate (docs/muon.png). So short a
training is mostly the descent from the unigram loss, 5.95 nats, where AdamW stays for 40 steps: in a longer one the gap may be
smaller.
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
