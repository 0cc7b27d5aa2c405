"""Accuracy of an AI judge: the clerk's preferences by three principles, compared with rules that a program checks.

  python -m experiments.launch --config=experiments/constitution/desk_judge_tiny.py

Two CPU cores, 29 s; the clerk of `desk_tiny.py` is trained first if it is not there.

Result (2026-11-27), over the pairs of which exactly one answer breaks a principle: the share in which the judge agrees with the
rule, asked in both orders; the same asked in one order; the position bias for the answer shown first, nats; and (even) the mean
distance of labels from 0.5 over the pairs of which both answers or neither break it:

  principle   pairs   agrees   one order    bias    even
  private       190    0.942       0.897   -0.12   0.085
  calm          388    0.817       0.816   -0.18   0.105
  kind          397    0.970       0.802   -0.18   0.086

Asking in both orders gains up to 17 points. The mean bias is small because it has both signs: for `calm` and `kind` the order
changes a preference by 0.28 nats on average. Of 800 pairs 130 had two identical answers and were left out.
"""

from align.conduct import Measure
from align.desk import Breaks
from align.judge_report import JudgeReport
from experiments.constitution.desk_rl_tiny import preferences


def get_config() -> JudgeReport:
  return JudgeReport(name='desk-judge', preferences=preferences(),
                     rules=tuple(Measure(name, Breaks(name)) for name in ('private', 'calm', 'kind')))
