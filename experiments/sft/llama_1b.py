"""SFT of the 1B Llama on human conversations in ChatML, with the loss on answers only.

  python -m experiments.launch --config=experiments/sft/llama_1b.py

Its parent is `experiments/pretrain/llama_1b.py`. For one H100 (80 GB); not run yet. It is the parent of the `llama_1b.py` in
`reward/`, `dpo/`, `ppo/` and `grpo/`; `lora/llama_1b.py` is the same fine-tuning with QLoRA.
"""

from dataclasses import replace

from experiments.pretrain.llama_1b import get_config as parent
from experiments.sft.chitchat import fine_tuned
from model.sharding import MeshShape
from train.optimizer import AdamW, Optimizer
from train.run import Run, Saving, Watch
from train.schedule import Linear


def get_config() -> Run:
  return replace(
      fine_tuned(parent(), length=2048),
      name='llama-1b-chat',
      batch=32,
      steps=120,                        # x 32 x 2048 = 7.9 million tokens, an epoch
      optimizer=Optimizer(AdamW(lr=2e-5, weight_decay=0.0), Linear(warmup=10)),
      mesh=MeshShape(),
      parts=8,
      watch=Watch(heldout=40, heldout_rows=128),
      saving=Saving(every=60),
  )
