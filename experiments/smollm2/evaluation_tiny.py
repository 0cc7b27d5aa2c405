"""The same as `evaluation.py` on fewer items, with the adapters of `lora_tiny.py`, in minutes on two CPU cores.

  python -m experiments.launch --config=experiments/smollm2/evaluation_tiny.py

Result (2026-11-27, two busy cores, 13 min, of which 5 of CPU time, besides the training of `lora_tiny.py`), before and after
with 95% intervals: bits per byte of 128 held-out sentences 1.649 (1.568 to 1.737) and 1.532 (1.465 to 1.605), which overlap;
the paired difference is -0.118 (-0.137 to -0.100). ROUGE-L of 24 titles 0.214 and 0.257, difference +0.043 (+0.018 to +0.070);
the first sentence of the text as a baseline has 0.226. The answers to 17.2% and 10.9% of 64 questions contain the right one,
difference -6.2% (-14.1% to 0): the fine-tuning may have cost knowledge, but 64 items are too few to tell.
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
