"""The quick start's report: held-out loss beside gzip and n-grams, samples, and the speed of generation. `make demo`.

  python -m experiments.launch --config=experiments/quickstart/report.py
"""

from experiments.quickstart.pretrain import get_config as pretrain
from train.eval.report import Report


def get_config() -> Report:
  return Report(name='sotu-report', run=pretrain())
