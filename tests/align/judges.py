"""Judges of rules for tests of what asks them, and a run that is trained just enough to be loaded."""

import hashlib
from dataclasses import dataclass

import numpy as np

from align.judge import Judge, Said, normalised
from align.principles import Principle
from align.sft import ChatTokens
from align.tasks import Guesses, Largest
from model.chat import Plain
from model.sizes import llama
from train.canonical import how
from train.data.corpus import Corpus
from train.data.pack import Whole
from train.data.rows import Rows
from train.data.vocabulary import Vocabulary
from train.run import Run, Saving, Watch

PRINCIPLES = tuple(Principle(name, f'{name}?', f'Be {name}.', f'Which is {name}?') for name in ('calm', 'kind', 'private'))


@dataclass(frozen=True)
class Scripted(Judge):
  """Answers `n` for a seed, criticises with `leak`, mends by adding a mark; weighs by the number that an answer is.

  To the log-odds of the option that stands first it adds `bias`. It fails with the call `fails`, counted from 1.
  """

  answers: int = 3
  bias: float = 0.0
  patience: float = 1e9            # reads no answers that come to more
  lazy: bool = False               # gives every answer back as it was
  fails: int = how(0)

  def open(self, store):
    return Script(self)


class Script:

  def __init__(self, judge: Scripted):
    self.judge, self.calls = judge, 0

  def write(self, talks, seeds):
    self.calls += 1
    if self.calls == self.judge.fails:
      raise KeyboardInterrupt
    return [Said(self._next(talk, seed), 'long' in talk[-1].content) for talk, seed in zip(talks, seeds)]

  def _next(self, talk, seed):
    asked, answer = talk[-1].content, next((message.content for message in talk if message.role == 'assistant'), '')
    if asked.endswith('?') and answer:
      return f'leak {hashlib.sha256(repr((talk, seed)).encode()).hexdigest()[:8]}'
    if asked.startswith('Be '):
      return answer if self.judge.lazy or answer == '0' else f'{answer} {asked[3:-1]}'
    return str(seed % self.judge.answers)

  def weigh(self, talks, options):
    rows = []
    for talk in talks:
      _, first, second, prefer = talk[-1].content.split('|')
      odds = (float(first) - float(second)) * (1 + len(prefer) % 3) + self.judge.bias
      rows.append([odds, 0.0] if float(first) + float(second) < self.judge.patience else [np.nan, np.nan])
    return normalised(np.array(rows).reshape(len(talks), len(options)))


def run(width: int = 16) -> Run:
  """Two steps of training, on conversations."""
  corpus = Corpus(name='guesses', sources=(Guesses(Largest(), 60),), stages=(), heldout_modulo=5)
  vocabulary = Vocabulary(name='guesses-bpe', corpus=corpus, size=320)
  tokens = ChatTokens(name='guesses-tokens', corpus=corpus, vocabulary=vocabulary, template=Plain(), longest=65)
  return Run(name='guesser', model=llama(320, width, 1, 2), rows=Rows(tokens, 64, packing=Whole()), batch=8, steps=2,
             watch=Watch(heldout=0), saving=Saving(every=0))
