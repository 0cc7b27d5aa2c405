"""How far the clerk can be believed as a judge: its preferences by three principles beside rules that a program checks.

  python -m experiments.launch --config=experiments/constitution/desk_judge_tiny.py

Result (2026-11-27, two cores: 29 s beside the clerk, `desk_tiny.py`, who is made first). Of
the pairs that a rule tells apart, the share in which the judge agrees; that share, had each order been believed alone; what
standing first is worth, nats; and how far labels are from 0.5 where both answers keep the principle or both break it:

  principle   pairs   agrees   one order    bias    even
  private       190    0.942       0.897   -0.12   0.085
  calm          388    0.817       0.816   -0.18   0.105
  kind          397    0.970       0.802   -0.18   0.086

Asking in both orders is worth up to 17 points. The mean bias is small because it is of both signs: for `calm` and `kind` an
answer gains or loses 0.28 nats by its place, on the average over pairs. Of 800 couples 130 were alike and left out.
"""

from align.conduct import Measure
from align.desk import Breaks
from align.judge_report import JudgeReport
from experiments.constitution.desk_rl_tiny import judged


def get_config() -> JudgeReport:
  return JudgeReport(name='desk-judge', preferences=judged(),
                     rules=tuple(Measure(name, Breaks(name)) for name in ('private', 'calm', 'kind')))
