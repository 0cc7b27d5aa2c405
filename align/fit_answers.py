"""Cuts prompts and answers to a length: all answers to a prompt keep the same prompt, and as little as possible is cut.

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
  turns: int           # how many of the oldest messages of the prompt
  tokens: int          # how many off the ends of the answers


def fit_answers(template: Template, tokenizer: Tokenizer, prompt: Messages, answers: Sequence[Messages], length: int,
                where: str) -> Fit | None:
  """Each answer after the same prompt in at most `length` tokens; None if one of them would have no token left.

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
  """Prompt and answer in tokens; the mask is 0 on answers that stand in the prompt."""
  ids, mask = render(template, tokenizer, (*prompt, *side))
  if any(message.role == 'assistant' for message in prompt):
    mask = np.where(np.arange(len(ids)) < len(render(template, tokenizer, prompt).ids), 0, mask).astype(np.uint8)
  return Rendered(ids, mask)
