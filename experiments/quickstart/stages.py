"""The quick start continued: SFT on film reviews, then DPO and PPO on critics' preferences, and a comparison of all stages.

  python -m experiments.launch --config=experiments/quickstart/stages.py

    pre-trained -> SFT on 10,000 reviews -> reward model (fresh over rotten reviews of one film) -> PPO
                                         -> DPO on the same pairs

All stages then answer the same questions about films that were held out. Two judges score the answers: the reward model,
against which PPO was trained, and a classifier on words (`words`), trained on the reviews of the held-out films and on no
model's output.

Result (2026-11-27, two CPU cores; the same numbers in two runs), 400 questions:

                  reward model       words      preferred to SFT      KL from SFT
  pre-trained        -0.26            0.37       45.8% (41 to 51)      53.5 nats
  SFT                -0.06            0.87
  DPO                 0.05            2.35       56.5% (52 to 61)       5.5
  PPO                 1.95            2.27       99.5% (99 to 100)     13.1

The reward model has an accuracy of 68.6% on held-out pairs. PPO improves the reward of nearly every answer, and the other
judge's score as well; DPO, which does not use the reward model, improves the other judge's score alone. PPO's answers are short
("A funny, unobbellable vision and do.") and end properly. A million parameters learn what critics like, and not what a film is.
"""

from dataclasses import replace

from align.credit import FromCritic
from align.critic import Critic
from align.dpo import DPO
from align.kl import Fixed
from align.modelled import Modelled, Scale
from align.pair_rows import PairRows, Scored
from align.pair_tokens import PairTokens
from align.policy import PPO
from align.questions import FromTalks
from align.review_pairs import SameFilm
from align.reviews import Reviews
from align.reward import RewardModel, Score
from align.rewards import Part
from align.rollout import Charged, Rollouts
from align.sft import ChatTokens
from align.stages import Stage, Stages
from align.wording import Wording
from experiments.quickstart.pretrain import get_config as pretrain
from experiments.sft.reviews_tiny import REVIEWS
from train.data.corpus import Corpus
from train.data.dedupe import ExactDuplicates
from train.data.pack import Whole
from train.data.rows import Rows
from train.optimizer import AdamW, Muon, Optimizer
from train.run import Run, Saving, Watch
from train.schedule import WSD, Constant, Linear

LIKED = Corpus(name='reviews-liked', sources=(Reviews(verdicts=('fresh',)),), stages=(ExactDuplicates(),), heldout_modulo=5,
               heldout_by='film')
QUESTIONS = FromTalks(LIKED)
WORDS = Part('words', Wording(REVIEWS, 'kind', 'fresh', 'rotten'), weight=0.0)


def sft(parent: Run) -> Run:
  """SFT: a user asks for a favourable or an unfavourable review of a film, and the assistant writes it."""
  tokens = ChatTokens(name='reviews-tokens', corpus=REVIEWS, vocabulary=parent.rows.vocabulary, longest=257)
  return replace(parent, name='critic', restore=parent, rows=Rows(tokens, length=256, packing=Whole()), batch=8, steps=300,
                 optimizer=Optimizer(Muon(lr=5e-3, others=AdamW(lr=5e-3)), WSD(warmup=10, decay=0.7)),
                 watch=Watch(heldout=150, heldout_rows=64), saving=Saving(every=0))


def pairs(parent: Run) -> PairTokens:
  """Preference pairs: asked for a favourable review, a fresh review of a film is chosen over a rotten one."""
  return PairTokens(name='reviews-pairs', corpus=REVIEWS, vocabulary=parent.rows.vocabulary, pairing=SameFilm(asked=('fresh',)),
                    longest=96)


def reward_model(parent: Run) -> Run:
  """The reward model, trained on these pairs."""
  return Run(name='critic-reward', model=parent.model, restore=parent, edits=(Score(),), rows=PairRows(pairs(parent)),
             objective=RewardModel(margin=0.0, centring=0.01), batch=32, parts=4, steps=160,
             optimizer=Optimizer(Muon(lr=3e-3, others=AdamW(lr=3e-3)), WSD(warmup=10, decay=0.7)),
             watch=Watch(heldout=80, heldout_rows=1024), saving=Saving(every=0))


def dpo(parent: Run) -> Run:
  """DPO on the pairs of the reward model; `parent` is the reference model."""
  scored = Scored(name='reviews-pairs-scored', pairs=pairs(parent), by=parent)
  return Run(name='critic-dpo', model=parent.model, restore=parent, rows=PairRows(scored), objective=DPO(beta=0.1), batch=32,
             parts=4, steps=120, optimizer=Optimizer(AdamW(lr=5e-4, weight_decay=0.0), Linear(warmup=10)),
             watch=Watch(heldout=60, heldout_rows=1024), saving=Saving(every=0))


def ppo(parent: Run) -> Run:
  """PPO with a critic, against the reward model."""
  liked = Modelled(Scale(name='critic-reward-scale', run=reward_model(parent)))
  rows = Rollouts(questions=QUESTIONS, rewards=(Part('liked', liked), WORDS), vocabulary=parent.rows.vocabulary,
                  credit=FromCritic(), asked=64, group=1, epochs=2, prompt_tokens=56, answer_tokens=40, kl=Fixed(0.05),
                  truncated=Charged(1.0))
  return Run(name='critic-ppo', model=parent.model, restore=parent, edits=(Critic(),), rows=rows, objective=PPO(), batch=32,
             steps=200, optimizer=Optimizer(AdamW(lr=3e-4, weight_decay=0.0), Constant(warmup=10)),
             watch=Watch(heldout=100, heldout_rows=128, metrics=4), saving=Saving(every=100))


def get_config() -> Stages:
  before = pretrain()
  chat = sft(before)
  liked = Part('liked', Modelled(Scale(name='critic-reward-scale', run=reward_model(chat))))
  return Stages(
      name='sotu-stages', against='SFT', questions=QUESTIONS, judges=(liked, WORDS), answers=400, prompt_tokens=56,
      answer_tokens=40, stages=(Stage('pre-trained', before), Stage('SFT', chat), Stage('DPO', dpo(chat)),
                                Stage('PPO', ppo(chat))))
