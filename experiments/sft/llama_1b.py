"""The Llama of 1.2 billion parameters taught to chat: human conversations in ChatML, loss on the answers alone.

  python -m experiments.launch --config=experiments/sft/llama_1b.py

It goes on from `experiments/pretrain/llama_1b.py`. Meant for one H100 (80 GB); not run yet. What stands on it: adapters over
4 bits (`lora/`), a reward model (`reward/`), DPO, PPO and GRPO, each in a file of this name.
"""

from dataclasses import replace

from experiments.pretrain.llama_1b import get_config as parent
from experiments.sft.chitchat import taught
from model.sharding import MeshShape
from train.optimizer import AdamW, Optimizer
from train.run import Run, Saving, Watch
from train.schedule import Linear


def get_config() -> Run:
  return replace(
      taught(parent(), length=2048),
      name='llama-1b-chat',
      batch=32,
      steps=120,                        # x 32 x 2048 = 7.9 million tokens, an epoch
      optimizer=Optimizer(AdamW(lr=2e-5, weight_decay=0.0), Linear(warmup=10)),
      mesh=MeshShape(),
      parts=8,
      watch=Watch(heldout=40, heldout_rows=128),
      saving=Saving(every=60),
  )
