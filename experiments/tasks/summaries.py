"""Summarisation: SmolLM2-135M-Instruct writes titles for 253 abstracts, scored by ROUGE against the authors' titles.

  python -m experiments.launch --config=experiments/tasks/summaries.py

The abstracts, all on perovskite solar cells, are from the wheel `evals` (OpenAI Evals, MIT, 46 MB, pinned by sha256). Titles
are very short summaries; the package index has no longer ones by people. With internet access, news articles and their
highlights can be read through TFDS: sources=(TfdsPaired('cnn_dailymail', split='test'),), and lead=3. `summaries_tiny.py` is
the same on 24 abstracts, with a result.
"""

from experiments.smollm2.chat import get_config as smollm2
from train.data.corpus import Corpus
from train.data.dedupe import ExactDuplicates
from train.eval.evaluation import Evaluation
from train.eval.replying import Replying
from train.eval.sets import titles
from train.eval.summaries import Summarisation

TITLES = Corpus(name='titles', sources=(titles(),), stages=(ExactDuplicates(),), heldout_modulo=2)


def summaries(items: int) -> Summarisation:
  """The task, with `items` abstracts of both splits, since no model is trained on them."""
  return Summarisation(name='titles', texts=TITLES, splits=('train', 'heldout'), items=items, lead=1,
                       asks='Write a title for the article that has this abstract. Answer with the title alone.',
                       replying=Replying(tokens=48, prompt_tokens=1024, rows=8))


def get_config() -> Evaluation:
  return Evaluation(name='smollm2-titles', run=smollm2(), tasks=(summaries(253),))
