"""The lineage behind the benchmark's rollouts, by the doors that every run goes through: from made-up words to a policy.

Everything has a fixed size. A question is digits, each a token of its own, and the template writes nothing about them but
bos, so that a prompt has exactly the tokens that it should have; the vocabulary has no id that could end an answer. The
parent and the reward model learn for one step: how well they do changes no time.
"""

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from align.credit import FromCritic, Grouped
from align.critic import Critic
from align.kl import Fixed
from align.modelled import Modelled, Scale
from align.pair_rows import PairRows
from align.pair_tokens import PairTokens
from align.policy import GRPO, PPO
from align.preferences import Pair, pair_text
from align.questions import Asking, Question, Questions
from align.reward import RewardModel, Score
from align.rewards import Part, TextReward
from align.rollout import Rollouts
from experiments.bench.ours.model import decoder, optimizer
from experiments.bench.task import Iteration, Task
from model.chat import EndOfText, Headed, Message, Pieces, Role
from model.tokenizer import Tokenizer
from train.artifact import Store
from train.data.corpus import Corpus
from train.data.document import Document, Split
from train.data.readers import Reader
from train.data.rows import Rows
from train.data.shuffle import key
from train.data.tokens import Tokens
from train.data.vocabulary import Vocabulary
from train.objectives import NextToken
from train.run import Run, Saving, Watch

WORDS, TEXTS, PAIRS = 6000, 400, 64
PARTS = 2                              # of a step's batch, so that one has as many tokens as one of the training benchmark
STEPS = 10_000                         # never reached


def digits(seed: int, count: int) -> str:
  """So many of them, at random."""
  return ''.join(map(str, np.random.default_rng(seed).integers(0, 10, count)))


@dataclass(frozen=True)
class MadeUp(Reader):
  """Texts of random words, enough different ones for a vocabulary of thousands of pieces."""

  _: KW_ONLY
  source: str = 'made-up'

  def files(self) -> list[Path]:
    return []

  def records(self) -> Iterator[Document]:
    random = np.random.default_rng(0)
    letters = np.array(list('abcdefghijklmnopqrstuvwxyz'))
    words = [''.join(random.choice(letters, random.integers(3, 9))) for _ in range(WORDS)]
    for number in range(TEXTS):
      text = ' '.join(words[min(place, WORDS) - 1] for place in random.zipf(1.1, 200))
      yield Document(f'{text} {digits(number, 20)}', self.source, str(number))


@dataclass(frozen=True)
class MadeUpPairs(Reader):
  """Pairs of digits."""

  _: KW_ONLY
  source: str = 'made-up-pairs'

  def files(self) -> list[Path]:
    return []

  def records(self) -> Iterator[Document]:
    for number in range(PAIRS):
      prompt, chosen, rejected = (digits(3 * number + side, 8) for side in range(3))
      pair = Pair((Message('user', prompt),), (Message('assistant', chosen),), (Message('assistant', rejected),))
      yield Document(pair_text(pair), self.source, str(number))


class Unending:
  """A tokenizer whose eos is beyond its ids, where nothing is sampled."""

  def __init__(self, whole: Tokenizer):
    self.whole, self.eos = whole, whole.size

  def __getattr__(self, name: str):
    return getattr(self.whole, name)


@dataclass(frozen=True, kw_only=True)
class Endless(Vocabulary):
  """A vocabulary without an id that ends an answer."""

  def load(self, store: Store) -> Tokenizer:
    return Unending(super().load(store))


@dataclass(frozen=True)
class Bare(Headed):
  """Nothing but what was said, and eos after an answer."""

  names: ClassVar = {'user': '', 'assistant': ''}

  def header(self, name: str) -> Pieces:
    return ()

  def end(self, role: Role) -> Pieces:
    return (EndOfText(),) if role == 'assistant' else ()


@dataclass(frozen=True)
class Digits(Asking):
  """Questions of so many tokens, bos included."""

  tokens: int

  def open(self, store: Store, split: Split) -> Questions:
    return lambda number: Question(f'{split} {number}', (Message('user', digits(key(split, number), self.tokens - 1)),))


@dataclass(frozen=True)
class Characters(TextReward):
  """How long an answer's text is: something that answers of one length in tokens differ in."""

  def score(self, question: Question, answer: str) -> float:
    return float(len(answer))


@dataclass(frozen=True)
class Lineage:
  """The runs of a task, each a value."""

  task: Task
  iteration: Iteration

  @cached_property
  def tokens(self) -> Tokens:
    corpus = Corpus(name='bench-texts', sources=(MadeUp(),), stages=())
    words = Endless(name='bench-words', corpus=corpus, size=self.task.vocab)
    return Tokens(name='bench-tokens', corpus=corpus, vocabulary=words)

  @cached_property
  def parent(self) -> Run:
    return Run(name='bench-parent', model=decoder(self.task), rows=Rows(self.tokens, self.iteration.prompt), batch=8, steps=1,
               optimizer=optimizer(self.task), objective=NextToken(), watch=Watch(heldout=0), saving=Saving(every=0))

  @cached_property
  def liked(self) -> Modelled:
    """What a reward model of the policy's size finds of an answer."""
    pairs = PairTokens(name='bench-pairs', corpus=Corpus(name='bench-pair-texts', sources=(MadeUpPairs(),), stages=()),
                       vocabulary=self.tokens.vocabulary, longest=64)
    run = replace(self.parent, name='bench-reward', restore=self.parent, edits=(Score(),), objective=RewardModel(),
                  rows=PairRows(pairs))
    return Modelled(Scale(name='bench-scale', run=run, pairs=16))

  def rollouts(self, **fields) -> Rollouts:
    it = self.iteration
    return Rollouts(questions=Digits(it.prompt), vocabulary=self.tokens.vocabulary, template=Bare(), prompt_tokens=it.prompt,
                    answer_tokens=it.answer, **fields)

  @property
  def ppo(self) -> Run:
    """Policy, critic, reference and reward model, each of the task's size."""
    rows = self.rollouts(rewards=(Part('liked', self.liked),), asked=self.iteration.answers, group=1, credit=FromCritic(),
                         kl=Fixed(0.05))
    return self._learner('bench-ppo', rows=rows, restore=self.parent, edits=(Critic(),), objective=PPO())

  @property
  def grpo(self) -> Run:
    """A policy alone, born of its seed."""
    rows = self.rollouts(rewards=(Part('characters', Characters()),), asked=self.iteration.asked, group=self.iteration.group,
                         credit=Grouped())
    return self._learner('bench-grpo', rows=rows, objective=GRPO())

  def _learner(self, name: str, **fields) -> Run:
    return Run(name=name, model=decoder(self.task), batch=self.iteration.batch, parts=PARTS, steps=STEPS,
               optimizer=optimizer(self.task), watch=Watch(heldout=0), saving=Saving(every=0), **fields)
