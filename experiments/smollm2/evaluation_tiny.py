"""The same as `evaluation.py` of fewer items, and of the adapters that `lora_tiny.py` trains, in minutes on two cores.

  python -m experiments.launch --config=experiments/smollm2/evaluation_tiny.py

Result (2026-11-27, two busy cores, 13 min and 5 of processor time, beside those of `lora_tiny.py`): bits per byte of 128 unseen
sentences 1.649 (1.568 to 1.737) before and 1.532 (1.465 to 1.605) after, which overlap; paired, -0.118 (-0.137 to -0.100).
ROUGE-L of 24 titles 0.214 and 0.257, +0.043 (+0.018 to +0.070); the first sentence alone has 0.226. To 17.2% and 10.9% of 64
questions the wanted answer is in what is said, -6.2% (-14.1% to 0): reviews may have taken that, but 64 items do not tell.
"""

from experiments.smollm2.chat import get_config as smollm2
from experiments.smollm2.evaluation import evaluated, reviews
from experiments.smollm2.lora_tiny import get_config as lora
from experiments.tasks.answers import answers
from experiments.tasks.summaries import summaries
from train.eval.comparison import Comparison


def get_config() -> Comparison:
  tasks = (reviews(128), answers(64), summaries(24))
  return Comparison(name='smollm2-lora-tiny-gave', one=evaluated(smollm2(), tasks), other=evaluated(lora(), tasks))
