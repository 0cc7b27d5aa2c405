"""Posts told apart by the group that they were sent to: 20 Newsgroups, from MiniLM's 22.6M parameters, all of which learn.

  python -m experiments.launch --config=experiments/tasks/newsgroups.py
"""

from experiments.tasks.reuters_r8 import measured, texts, told_apart
from train.eval.evaluation import Evaluation

CLASSES = ('alt.atheism', 'comp.graphics', 'comp.os.ms-windows.misc', 'comp.sys.ibm.pc.hardware', 'comp.sys.mac.hardware',
           'comp.windows.x', 'misc.forsale', 'rec.autos', 'rec.motorcycles', 'rec.sport.baseball', 'rec.sport.hockey',
           'sci.crypt', 'sci.electronics', 'sci.med', 'sci.space', 'soc.religion.christian', 'talk.politics.guns',
           'talk.politics.mideast', 'talk.politics.misc', 'talk.religion.misc')


def get_config() -> Evaluation:
  return measured(told_apart('newsgroups', texts('newsgroups', '20newsgroups'), CLASSES, length=512, steps=1248, batch=8))
