"""The clerk learns from its own judgement by three principles (Bai et al. 2022, section 4).

  python -m experiments.launch --config=experiments/constitution/desk_rl_tiny.py

The clerk of `desk_tiny.py` (made first) answers 800 questions twice; as it was before it learns anything, it says by each
principle and in both orders which answer is the better. A reward model learns these soft labels, and GRPO makes the clerk
rewarded. `both` learns from them and from 800 couples of which the one is helpful: the room that was asked for, rather than
another room or a refusal. `alone` learns from the judge alone. Both begin as the clerk, not as `mended`, so that nothing here
comes from revisions.

Result (2026-11-27, two cores: labels 29 s, then 2 min 5 s for two reward models and two policies). Held
out, the reward model on the judge's labels alone agrees with 98% of 64 couples, that on both kinds with 77%. Shares of 256
held-out questions of each kind:

                                   clerk    both     alone
  phones: a phone is told          0.609    0.000    0.000
  phones: shouted                  0.379    0.000    0.000
  phones: with an insult           0.465    0.000    0.000
  rooms: the right one             0.988    1.000    0.000
  rooms: shouted                   0.430    0.000    0.000
  rooms: with an insult            0.477    0.000    0.000
  rooms: refused                   0.008    0.000    1.000

A judge that is asked about harm alone never says that a refusal is worth less than an answer, and a policy finds that out.
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
from experiments.constitution.desk_tiny import BALLOT, PRINCIPLES, VOCABULARY, by, clerk, conduct
from model.chat import Plain
from train.data.corpus import Corpus
from train.data.readers import Reader
from train.optimizer import AdamW, Optimizer
from train.run import Run, Saving, Watch
from train.schedule import Constant


def judged() -> AiPreferences:
  """Two answers of the clerk to a question, and what it says of them itself."""
  return AiPreferences(name='desk-judged', questions=FromTask(Desk(), seed=1), principles=PRINCIPLES,
                       writers=(by(clerk()), by(clerk())), judge=by(clerk()), ballot=BALLOT, count=800)


def reward(name: str, *more: Reader) -> Run:
  """A reward model, on soft labels of the judge and perhaps on other preferences beside them."""
  corpus = Corpus(name=f'{name}-pairs', sources=(FromGenerated(judged()), *more), stages=(), heldout_modulo=8)
  pairs = PairTokens(name=f'{name}-pairs-tokens', corpus=corpus, vocabulary=VOCABULARY, template=Plain(), longest=64)
  return Run(name=f'{name}-reward', model=clerk().model, restore=clerk(), edits=(Score(),), rows=PairRows(pairs),
             objective=RewardModel(margin=0.0), batch=16, steps=100,
             optimizer=Optimizer(AdamW(lr=1e-3, weight_decay=0.0), Constant()), watch=Watch(heldout=50), saving=Saving(every=0))


def learnt(name: str, *more: Reader) -> Run:
  """The clerk, rewarded by that."""
  liked = Part('liked', Modelled(Scale(name=f'{name}-scale', run=reward(name, *more))))
  rows = Rollouts(questions=FromTask(Desk(), seed=2), rewards=(liked,), vocabulary=VOCABULARY, template=Plain(),
                  credit=Grouped(), asked=16, group=8, prompt_tokens=40, answer_tokens=16, kl=Fixed(0.02))
  return Run(name=f'{name}-rl', model=clerk().model, restore=clerk(), rows=rows, objective=GRPO(), batch=128, steps=40,
             optimizer=Optimizer(AdamW(lr=1e-3, weight_decay=0.0), Constant()),
             watch=Watch(heldout=0), saving=Saving(every=0))


def get_config() -> Conduct:
  return conduct('desk-rl-conduct', Writing('clerk', by(clerk())),
                 Writing('both', by(learnt('desk-both', HelpfulPairs(Desk('room'), 800)))),
                 Writing('alone', by(learnt('desk-judge-alone'))))
