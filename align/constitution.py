"""Constitutional AI: the conversations in which critics and judges are asked, and the labels of a judge (Bai et al. 2022).

The supervised stage (critique and revision) is `align.revisions`, the preferences of a judge are `align.ai_preferences`, the
principles are read by `align.principles`. Here a principle, a question and answers become a conversation:

    user       what was asked                    user       one question with both answers and the
    assistant  its answer                                   principle's own question, a `Ballot`
    user       principle.critique
    assistant  the critique                      assistant  A
    user       principle.revise
    assistant  the revision
"""

import re
from dataclasses import dataclass

import numpy as np

from align.conversations import Messages
from align.principles import Principle
from model.chat import Message
from model.errors import ConfigError

PLACES = ('talk', 'first', 'second', 'prefer', 'one', 'two')


def criticising(question: Messages, answer: str, principle: Principle) -> Messages:
  """The conversation that asks for a critique of an answer."""
  return *question, Message('assistant', answer), Message('user', principle.critique)


def revising(question: Messages, answer: str, principle: Principle, critique: str) -> Messages:
  """The conversation that asks for a better answer, after the critique."""
  return *criticising(question, answer, principle), Message('assistant', critique), Message('user', principle.revise)


@dataclass(frozen=True)
class Ballot:
  """How a judge is asked which of two answers is the better, and the two texts that it may answer with.

  In `frame`, {talk} stands for the conversation, {first} and {second} for the answers, {prefer} for the principle's
  question, {one} and {two} for the options.
  """

  frame: str = ('Consider the following conversation between a human and an assistant:\n\n{talk}\n\n{prefer}\n\nOptions:\n'
                '({one}) {first}\n({two}) {second}\n\nAnswer with {one} or {two} alone.')
  options: tuple[str, str] = ('A', 'B')

  def __post_init__(self):
    if missing := [place for place in ('talk', 'first', 'second', 'prefer') if self.frame.count(f'{{{place}}}') != 1]:
      raise ConfigError('ballot.frame', f'frame = {self.frame!r}', f'it does not hold {{{missing[0]}}} just once',
                        'name all that a judge must read')
    one, two = self.options
    if not one or not two or one.startswith(two) or two.startswith(one):
      raise ConfigError('ballot.options', f'options = {self.options}', 'one is empty or how the other begins, so what a judge '
                        'answers would not tell them apart', "use for example ('A', 'B')")

  def __call__(self, question: Messages, first: str, second: str, principle: Principle) -> Messages:
    """The conversation that the judge continues with one of the options. Braces in answers are not taken for places."""
    said = {'talk': as_text(question), 'first': first, 'second': second, 'prefer': principle.prefer,
            'one': self.options[0], 'two': self.options[1]}
    text = re.sub(r'\{(' + '|'.join(PLACES) + r')\}', lambda place: said[place[1]], self.frame)
    return (Message('user', text),)


def as_text(talk: Messages) -> str:
  """A conversation as a judge reads it."""
  names = {'system': 'System', 'user': 'Human', 'assistant': 'Assistant', 'tool': 'Tool'}
  return '\n\n'.join(f'{names[message.role]}: {message.content}' for message in talk)


def label(logps_NO2: np.ndarray, clamp: tuple[float, float] | None = None) -> float:
  """The probability that the first of two answers is the better, of a judge's log-probs f[principles, orders, options].

  In the first order the first answer is the first option, in the second order it is the second. The two are averaged as
  log-odds, so that whatever a judge adds to an option for its place or its letter cancels exactly. The principles are then
  averaged as probabilities. `clamp` bounds the label (Bai et al. 2022: 0.4 and 0.6, for judges that reason before they answer
  and so are sure of everything).
  """
  odds_NO = np.asarray(logps_NO2, np.float64)[..., 0] - np.asarray(logps_NO2, np.float64)[..., 1]
  odds_N = 0.5 * (odds_NO[:, 0] - odds_NO[:, 1])
  mean = float((0.5 * (1.0 + np.tanh(0.5 * odds_N))).mean())         # tanh: a sigmoid that does not overflow
  return mean if clamp is None else float(np.clip(mean, *clamp))
