"""Answers made to fit in so many tokens, all after one and the same prompt: as little as will do is cut, and told.

A template renders them, so that what is compared is what a model would have read and said.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from align.conversations import Messages
from model.chat import Rendered, Template, check, render
from model.tokenizer import Tokenizer


class Fit(NamedTuple):
  """Answers in tokens, each after the prompt, and what was cut."""

  answers: list[Rendered]
  turns: int           # oldest messages of the prompt
  tokens: int          # off the ends of the answers


def fit_answers(template: Template, tokenizer: Tokenizer, prompt: Messages, answers: Sequence[Messages], length: int,
                where: str) -> Fit | None:
  """All answers in at most `length` tokens after one and the same prompt; None if one of them would be lost as a whole.

  The system message stays; as few of the prompt's oldest turns are left out as will do for all answers. If they are too
  long even after the last question, they lose their ends. Raises: DataError as `check` does.
  """
  for answer in answers:
    check(template, (*prompt, *answer), where)
  scene = prompt[:int(prompt[0].role == 'system')]
  asked = prompt[len(scene):]
  begins = [place for place, message in enumerate(asked) if place == 0 or message.role == 'user'] or [0]
  for begin in begins:
    sides = [_answer(template, tokenizer, (*scene, *asked[begin:]), answer) for answer in answers]
    if max(len(side.ids) for side in sides) <= length:
      break
  cut = [Rendered(side.ids[:length], side.mask[:length]) for side in sides]
  if not all(side.mask.any() for side in cut):
    return None
  return Fit(cut, begin, sum(max(0, len(side.ids) - length) for side in sides))


def _answer(template: Template, tokenizer: Tokenizer, prompt: Messages, side: Messages) -> Rendered:
  """The whole side; answers that the prompt has in it are read, not judged."""
  ids, mask = render(template, tokenizer, (*prompt, *side))
  if any(message.role == 'assistant' for message in prompt):
    mask = np.where(np.arange(len(ids)) < len(render(template, tokenizer, prompt).ids), 0, mask).astype(np.uint8)
  return Rendered(ids, mask)
