"""RLAIF (Bai et al. 2022, section 4): the clerk is trained by GRPO on preferences that it gave itself by three principles.

  python -m experiments.launch --config=experiments/constitution/desk_rl_tiny.py

The clerk of `desk_tiny.py` (trained first) answers 800 questions twice, and judges by each principle, in both orders, which
answer is better. A reward model learns these soft labels, and GRPO maximises its reward. `both` also learns from 800 pairs on
helpfulness: the room that was asked for, rather than another room or a refusal. `alone` learns from the judge's labels only.
Both start from the clerk, not from `mended`, so nothing here comes from revisions.

Two CPU cores: labels 29 s, two reward models and two policies 2 min 5 s.

Result (2026-11-27). The reward model on the judge's labels alone agrees with 98% of 64 held-out pairs, that on both kinds with
77%. Shares of 256 held-out questions of each kind:

                                   clerk    both     alone
  phones: a phone is told          0.609    0.000    0.000
  phones: shouted                  0.379    0.000    0.000
  phones: with an insult           0.465    0.000    0.000
  rooms: the right one             0.988    1.000    0.000
  rooms: shouted                   0.430    0.000    0.000
  rooms: with an insult            0.477    0.000    0.000
  rooms: refused                   0.008    0.000    1.000

A judge that is asked only about harm never prefers an answer to a refusal, and the policy exploits that: `alone` always
refuses.
"""

from align.ai_preferences import AiPreferences
from align.conduct import Conduct, Writing
from align.credit import Grouped
from align.desk import Desk, HelpfulPairs
from align.generated import FromGenerated
from align.kl import Fixed
from align.modelled import Modelled, Scale
from align.pair_rows import PairRows
from align.pair_tokens import PairTokens
from align.policy import GRPO
from align.questions import FromTask
from align.reward import RewardModel, Score
from align.rewards import Part
from align.rollout import Rollouts
from experiments.constitution.desk_tiny import BALLOT, PRINCIPLES, VOCABULARY, clerk, conduct, responder
from model.chat import Plain
from train.data.corpus import Corpus
from train.data.readers import Reader
from train.optimizer import AdamW, Optimizer
from train.run import Run, Saving, Watch
from train.schedule import Constant


def preferences() -> AiPreferences:
  """Pairs of answers of the clerk to a question, and its own soft labels of them."""
  return AiPreferences(name='desk-judged', questions=FromTask(Desk(), seed=1), principles=PRINCIPLES,
                       writers=(responder(clerk()), responder(clerk())), judge=responder(clerk()), ballot=BALLOT, count=800)


def reward_model(name: str, *more: Reader) -> Run:
  """A reward model, trained on the judge's soft labels and on `more` preferences."""
  corpus = Corpus(name=f'{name}-pairs', sources=(FromGenerated(preferences()), *more), stages=(), heldout_modulo=8)
  pairs = PairTokens(name=f'{name}-pairs-tokens', corpus=corpus, vocabulary=VOCABULARY, template=Plain(), longest=64)
  return Run(name=f'{name}-reward', model=clerk().model, restore=clerk(), edits=(Score(),), rows=PairRows(pairs),
             objective=RewardModel(margin=0.0), batch=16, steps=100,
             optimizer=Optimizer(AdamW(lr=1e-3, weight_decay=0.0), Constant()), watch=Watch(heldout=50), saving=Saving(every=0))


def grpo(name: str, *more: Reader) -> Run:
  """The clerk after GRPO against that reward model."""
  liked = Part('liked', Modelled(Scale(name=f'{name}-scale', run=reward_model(name, *more))))
  rows = Rollouts(questions=FromTask(Desk(), seed=2), rewards=(liked,), vocabulary=VOCABULARY, template=Plain(),
                  credit=Grouped(), asked=16, group=8, prompt_tokens=40, answer_tokens=16, kl=Fixed(0.02))
  return Run(name=f'{name}-rl', model=clerk().model, restore=clerk(), rows=rows, objective=GRPO(), batch=128, steps=40,
             optimizer=Optimizer(AdamW(lr=1e-3, weight_decay=0.0), Constant()),
             watch=Watch(heldout=0), saving=Saving(every=0))


def get_config() -> Conduct:
  return conduct('desk-rl-conduct', Writing('clerk', responder(clerk())),
                 Writing('both', responder(grpo('desk-both', HelpfulPairs(Desk('room'), 800)))),
                 Writing('alone', responder(grpo('desk-judge-alone'))))
