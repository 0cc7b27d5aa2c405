"""Adds two control tokens to SmolLM2-135M, `<|fresh|>` and `<|rotten|>`, and trains them in front of reviews of that kind.

  python -m experiments.launch --config=experiments/smollm2/tool_tokens_tiny.py
  python -m experiments.smollm2.heed --run=runs/smollm2-verdicts-...

Two CPU cores, minutes. The embedding table gets two more rows, initialised to the mean of the others. Trained are these 1,152
numbers and 2.4 million of adapters, 1.8% of the model, in 40 steps of 512 tokens of one-line reviews.

Result (2026-11-27, two cores under a load of 12, 14 min; 4 min 22 s of CPU time): held-out loss 5.165 nats a token before
(1.675 bits a byte), 4.041 after (1.310), with each review after its own token. The model does not distinguish the two tokens
yet, whose rows start equal: of 300 held-out reviews 53.3% (standard error 2.9) are likelier after their own token, by 0.017
nats a review (standard error 0.024). Of three texts sampled with the same seed after each token, two were equal; the third was
"A good story, but too long , too expensive to climax." and "A good story that can be used as a film noir."
"""

from dataclasses import KW_ONLY, dataclass

from align.reviews import VERDICTS, FilmTexts
from experiments.smollm2.chat import VOCABULARY
from experiments.smollm2.chat import get_config as smollm2
from model.adapt import LoRA
from model.new_tokens import NewTokens
from train.data.codes import CodedTokens
from train.data.corpus import Corpus
from train.data.dedupe import ExactDuplicates
from train.data.extended import ExtendedVocabulary
from train.data.pack import Whole
from train.data.rows import Rows
from train.optimizer import AdamW, Optimizer
from train.run import Run, Saving, Watch
from train.schedule import Linear

CODES = tuple((verdict, f'<|{verdict}|>') for verdict in VERDICTS)
EXTENDED = ExtendedVocabulary(name='smollm2-verdicts-tokens', base=VOCABULARY, tokens=tuple(token for _, token in CODES))


@dataclass(frozen=True)
class Lines(FilmTexts):
  """The reviews as plain texts, without the plots."""

  _: KW_ONLY
  source: str = 'review-lines'

  @property
  def kinds(self) -> tuple[str, ...]:
    return VERDICTS


LINES = Corpus(name='review-lines', sources=(Lines(),), stages=(ExactDuplicates(),), heldout_modulo=5, heldout_by='film')


def get_config() -> Run:
  parent, new = smollm2(), NewTokens(len(CODES))
  tokens = CodedTokens(name='smollm2-coded', corpus=LINES, vocabulary=EXTENDED, field='kind', codes=CODES)
  return Run(name='smollm2-verdicts', model=new.model(parent.model), restore=parent, edits=(new, LoRA(8, alpha=16.0)),
             rows=Rows(tokens, length=128, packing=Whole()), batch=4, steps=40,
             optimizer=Optimizer(AdamW(lr=2e-3, weight_decay=0.0), Linear(warmup=5)),
             watch=Watch(heldout=20, heldout_rows=8, metrics=4), saving=Saving(every=0))
