"""Conversations in the ids of published kinds of tokenizers."""

import pytest
from hypothesis import given, settings

from model.chat import ChatML, Control, Message, prompt, render, reply
from model.jinja_template import Jinja
from tests.model.chats import controls, conversations
from tests.model.tokenizer_kinds import NAMES, library, ours


@pytest.mark.parametrize('kind', ['smollm', 'gemma'])
@settings(max_examples=60, deadline=None)
@given(conversations(ChatML()))
def test_conversations_keep_the_laws_of_chat(kind, messages):
  tokenizer, template = ours(kind), ChatML()
  ids, mask = render(template, tokenizer, messages)
  before = prompt(template, tokenizer, messages[:-1]) if len(messages) > 1 else []
  assert ids[:len(before)].tolist() == before
  assert controls(tokenizer, ids) == [tokenizer.bos] + [tokenizer.controls[name] for _ in messages for name in NAMES[4:]]
  if before:
    assert reply(template, tokenizer, ids[len(before):]) == messages[-1]
    assert mask[len(before):].all()


INST = Jinja(source="{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
                    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}")
TALK = [Message('user', 'Who are you?'), Message('assistant', 'A poem.'), Message('user', 'More.'), Message('assistant', 'No')]


@pytest.mark.parametrize('kind', ['llama-2', 'mistral', 'with a blank', 'smollm'])
@pytest.mark.parametrize('template', [INST, ChatML()], ids=['text', 'controls'])
def test_a_conversation_stands_for_what_it_does_where_their_library_reads_its_whole_text(template, kind):
  """So a blank that a model puts before texts is before those pieces alone that its makers put it before.

  Ids are the same where words are cut before they are merged; elsewhere a merge may reach over the end of a message.
  """
  tokenizer = ours(kind)
  pieces = [piece for span, _ in template.spans(tokenizer, TALK) for piece in span]
  text = ''.join(piece.name if isinstance(piece, Control) else piece for piece in pieces)
  ids = render(template, tokenizer, TALK).ids.tolist()
  theirs = library(kind).encode(text if template is INST else f'<s>{text}', add_special_tokens=False).ids
  assert tokenizer.decode_bytes(ids) == tokenizer.decode_bytes(theirs)
  assert controls(tokenizer, ids) == controls(tokenizer, theirs)
  assert kind in ('llama-2', 'mistral') or ids == theirs
  before = prompt(template, tokenizer, TALK[:-1])
  assert ids[:len(before)] == before and reply(template, tokenizer, ids[len(before):]) == TALK[-1]
