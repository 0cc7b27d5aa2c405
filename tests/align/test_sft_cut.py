"""What of a conversation is learnt, and what is cut where it is too long."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from align.sft import Answers, Divide, Everything, Fitted, LastAnswer, NoAnswerLeft, cuts, exchanges, fit
from model.chat import ChatML, Message, prompt, render
from model.errors import DataError
from tests.model.chats import EVERY, SAID, TALK, own, told

TALKS = st.tuples(st.lists(SAID, max_size=1), st.lists(st.tuples(SAID, SAID), min_size=1, max_size=5)).map(
    lambda drawn: [*(Message('system', text) for text in drawn[0]),
                   *(message for asked, said in drawn[1] for message in (Message('user', asked), Message('assistant', said)))])


def parted(talk: list[Message]) -> tuple[list[Message], list[Message]]:
  """The system message, if there is one, and the turns."""
  begin = int(talk[0].role == 'system')
  return talk[:begin], talk[begin:]


@EVERY
@settings(max_examples=80, deadline=None)
@given(talk=TALKS, length=st.integers(1, 120))
def test_laws_of_truncation(template, talk, length):
  """Oldest turns go whole and as few as will do; the system message stays; an answer is cut only when all else is gone."""
  tokenizer, (scene, turns) = own(template), parted(talk)
  shortest = [*scene, *turns[-2:]]
  try:
    rendered, unanswered, left_out, tokens = fit(template, tokenizer, talk, length)
  except NoAnswerLeft as error:
    assert error.id == 'chat.no-answer-left' and length <= len(prompt(template, tokenizer, shortest[:-1]))
    return
  whole = render(template, tokenizer, [*scene, *turns[left_out:]])
  assert rendered.ids.tolist() == whole.ids[:length].tolist() and rendered.mask.tolist() == whole.mask[:length].tolist()
  assert rendered.mask.any() and unanswered == 0 and tokens == len(whole.ids) - len(rendered.ids) and left_out % 2 == 0
  if left_out:
    assert len(render(template, tokenizer, [*scene, *turns[left_out - 2:]]).ids) > length
  if tokens:
    assert left_out == len(turns) - 2 and len(rendered.ids) == length


@EVERY
@settings(max_examples=80, deadline=None)
@given(talk=TALKS, length=st.integers(20, 120))
def test_laws_of_division(template, talk, length):
  """Every answer is learnt in exactly one piece, after all of its exchange and the system message; pieces are as few as go."""
  tokenizer, (scene, turns) = own(template), parted(talk)
  pieces, place = Divide()(template, tokenizer, talk, length, 'here'), 0
  for piece in pieces:
    grown = [render(template, tokenizer, [*scene, *turns[place:end]]) for end in range(place + 2, len(turns) + 1, 2)]
    sizes = [len(each.ids) for each in grown]
    count = max(1, sum(size <= length for size in sizes))
    place += 2 * count
    if sizes[0] <= length:
      assert piece.rendered.ids.tolist() == grown[count - 1].ids.tolist() and not cuts([piece])
    elif isinstance(piece, Fitted):
      assert piece.tokens == sizes[0] - length and piece.rendered.mask.any()
  assert place == len(turns)
  if len(pieces) == 1 and isinstance(pieces[0], Fitted):
    assert pieces[0].rendered.ids.tolist() == fit(template, tokenizer, talk, length).rendered.ids.tolist()


def test_exchanges_are_whole():
  roles = ['assistant', 'user', 'user', 'assistant', 'tool', 'assistant', 'user', 'tool', 'user', 'assistant', 'user']
  assert exchanges([Message(role, 'x') for role in roles]) == [0, 1, 6]


def test_a_conversation_that_fits_is_left_alone():
  tokenizer = own(ChatML())
  whole = render(ChatML(), tokenizer, TALK)
  for length in (len(whole.ids), 10_000):
    fitted = fit(ChatML(), tokenizer, TALK, length)
    assert fitted.rendered.ids.tolist() == whole.ids.tolist() and not cuts([fitted])
  assert fit(ChatML(), tokenizer, TALK, len(whole.ids) - 1).turns == 2


def test_what_nobody_answers_does_not_push_the_answer_out():
  talk = [*TALK[1:3], Message('user', 'long ' * 50), Message('tool', '5')]
  fitted = fit(ChatML(), own(ChatML()), talk, 60)
  assert fitted.rendered.ids.tolist() == render(ChatML(), own(ChatML()), TALK[1:3]).ids.tolist()
  assert [(reason.name, reason.places) for reason in cuts([fitted])] == [('nobody answers the end', 2)]


def test_what_is_left_begins_with_the_user_and_not_with_a_tool():
  talk = [*TALK[1:3], TALK[3], Message('assistant', 'ask'), Message('tool', '5 ' * 20), TALK[4]]
  tokenizer = own(ChatML())
  wanted = render(ChatML(), tokenizer, talk[2:])
  for length in range(len(wanted.ids), len(render(ChatML(), tokenizer, talk).ids)):
    assert fit(ChatML(), tokenizer, talk, length).rendered.ids.tolist() == wanted.ids.tolist()


@pytest.mark.parametrize('talk, id', [((), 'chat.empty'), (TALK[:2], 'chat.no-answer'), (TALK[1::-1], 'chat.late-system'),
                                      ([TALK[1], Message('assistant', ' ')], 'chat.empty-answer')])
def test_nothing_to_learn_is_refused_and_says_where(talk, id):
  with pytest.raises(DataError, match=r'talks:one\.jsonl:3') as caught:
    fit(ChatML(), own(ChatML()), talk, 99, 'talks:one.jsonl:3')
  assert caught.value.id == id


@pytest.mark.parametrize('learn, learnt', [
  (Answers(), 'Hello!<|im_end|>Fine, thanks.<|im_end|>'), (LastAnswer(), 'Fine, thanks.<|im_end|>'),
  (Everything(), '<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n'
                 '<|im_start|>user\nTwo?<|im_end|>\n<|im_start|>assistant\nFine, thanks.<|im_end|>')])
def test_what_is_learnt(learn, learnt):
  tokenizer = own(ChatML())
  ids, mask = render(ChatML(), tokenizer, TALK[1:])
  assert told(tokenizer, ids[learn(mask) == 1]) == learnt
  assert learn(mask).dtype == np.uint8
