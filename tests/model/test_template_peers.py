"""Published chat templates, as TRL brings them: they write what transformers writes, and keep our laws or are refused by name.

They run in an environment of their own (`make peers`), and the test is skipped by that name where it is absent.
"""

import re
from collections import Counter
from datetime import date

import numpy as np
import pytest

from model.chat import Message, prompt, render, reply
from model.errors import UserError
from model.jinja_template import Jinja, Names
from tests.model.chats import tokenizer_of
from tests.peers import of

TALK = [Message('user', 'Who are you?'), Message('assistant', '  A poem,\n\nand more. ')]
CONTROL = re.compile(r'<[|\uff5c][^\'"\s<>]+>|<[^\'"\s<>]+[|\uff5c]>|<(?:start|end)_of_turn>')
OURS = {'<|bos|>', '<|eos|>', '<|pad|>', '<|unk|>'}


@pytest.fixture(scope='module')
def published(tmp_path_factory):
  found = of.told('trl', 'trl_templates.py', tmp_path_factory.mktemp('templates'), talk=np.array(TALK))
  return list(zip(*(map(str, found[name]) for name in ('sources', 'whole', 'prompt'))))


def test_published_templates(published):
  """All of them write transformers' text. Two fail in both; what the others are refused for, they do.

  Twelve prompt for thoughts, of which the conversation has none or closed ones; four, of models that see, want contents in
  parts; one ends no answer, for its next turn does.
  """
  assert Counter(outcome(*each) for each in published) == {
      'rendered': 53, 'chat.template-prompts-otherwise': 12, 'chat.template-changes-contents': 4,
      'chat.template-ends-nothing': 1, 'fails in both': 2}


def outcome(source: str, whole: str, asked: str) -> str:
  """What became of a template."""
  template = Jinja(source=source, date=date.today().isoformat())
  tokenizer = tokenizer_of(*sorted(set(CONTROL.findall(source)) - OURS))
  try:
    texts = [template.write(Names.of(tokenizer), talk, ask) for talk, ask in ((TALK, False), (TALK[:-1], True))]
  except UserError:
    return 'fails in both' if whole[0] == '!' else 'fails alone'
  if texts != [whole, asked]:
    return 'other text'
  try:
    ids, mask = render(template, tokenizer, TALK)
  except UserError as error:
    return error.id
  before = prompt(template, tokenizer, TALK[:-1])
  assert ids[:len(before)].tolist() == before and mask[len(before):].all() and not mask[:len(before)].any()
  assert reply(template, tokenizer, ids[len(before):]).content.strip() == TALK[-1].content.strip()
  return 'rendered'
