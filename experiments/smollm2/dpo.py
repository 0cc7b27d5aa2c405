"""DPO (Rafailov et al. 2023) of SmolLM2 after `lora.py`: favourable reviews of a film over unfavourable ones.

  python -m experiments.launch --config=experiments/smollm2/dpo.py

The parent's adapters are merged into the weights and new ones are trained; the model without these is the reference. For one
GPU, not run yet; `dpo_tiny.py` is the same in minutes on a CPU.
"""

from align.dpo import DPO
from align.pair_report import Agreement
from align.pair_rows import PairRows
from align.pair_tokens import PairTokens
from align.review_pairs import SameFilm
from experiments.smollm2.chat import get_config as smollm2
from experiments.smollm2.lora import REVIEWS
from experiments.smollm2.lora import get_config as reviewer
from model.adapt import LoRA, Merge
from train.optimizer import AdamW, Optimizer
from train.run import Run, Saving, Watch
from train.schedule import Linear


def dpo(parent: Run, longest: int = 256) -> Run:
  """The training run, from `parent`, on pairs of at most `longest` tokens a side."""
  template = smollm2().template
  assert template is not None
  pairs = PairTokens(name='smollm2-pairs', corpus=REVIEWS, vocabulary=parent.vocabulary, template=template,
                     pairing=SameFilm(asked=('fresh',)), longest=longest)
  return Run(name='smollm2-dpo', model=parent.model, restore=parent, edits=(Merge(), LoRA(16, alpha=32.0)),
             rows=PairRows(pairs), objective=DPO(beta=0.1), batch=32, parts=4, steps=160,
             optimizer=Optimizer(AdamW(lr=1e-4, weight_decay=0.0), Linear(warmup=10)),
             watch=Watch(heldout=40, heldout_rows=128), saving=Saving(every=80))


def get_config() -> Agreement:
  return Agreement(name='smollm2-dpo-agreement', run=dpo(reviewer()))
