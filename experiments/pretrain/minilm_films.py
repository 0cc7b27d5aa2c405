"""Domain-adaptive pre-training of MiniLM: masked LM on 10,000 reviews and 1,000 plots of films, on one GPU.

  python -m experiments.launch --config=experiments/pretrain/minilm_films.py

Continued pre-training in a domain helps later fine-tuning there (Gururangan et al. 2020). Whole words are masked (Devlin et al.
2019), and texts that fit into a row are not split. The published model has no masked-LM head; its embedding table is used as
one. Not run yet on a GPU; `minilm_films_tiny.py` is the same in minutes on a CPU.
"""

from experiments.embedding.minilm import VOCABULARY
from experiments.embedding.minilm import get_config as minilm
from experiments.pretrain.films_tiny import FILMS
from train.data.masking import Masking, Word
from train.data.pack import Whole
from train.data.rows import Rows
from train.data.tokens import Tokens
from train.objectives import MaskedLM
from train.optimizer import AdamW, Optimizer
from train.run import Run, Saving, Watch
from train.schedule import Linear


def get_config() -> Run:
  parent = minilm()
  tokens = Tokens(name='minilm-films-tokens', corpus=FILMS, vocabulary=VOCABULARY)
  return Run(
      name='minilm-films',
      model=parent.model,
      restore=parent,
      rows=Rows(tokens, length=128, packing=Whole(), masking=Masking(unit=Word())),
      batch=64,
      steps=1000,
      objective=MaskedLM(),
      optimizer=Optimizer(AdamW(lr=5e-4, weight_decay=0.01), Linear(warmup=50)),
      watch=Watch(heldout=100, heldout_rows=256),
      saving=Saving(every=200),
  )
