"""The same as `summaries.py` on 24 abstracts, in two minutes on two CPU cores.

  python -m experiments.launch --config=experiments/tasks/summaries_tiny.py

Result (from the same task in `smollm2/evaluation_tiny.py`): ROUGE-L 0.214 (0.169 to 0.262). For comparison, the abstract's
first sentence has 0.226.
"""

from experiments.smollm2.chat import get_config as smollm2
from experiments.tasks.summaries import summaries
from train.eval.evaluation import Evaluation


def get_config() -> Evaluation:
  return Evaluation(name='smollm2-titles-tiny', run=smollm2(), tasks=(summaries(24),))
