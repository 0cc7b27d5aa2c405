"""Conversations from files: what is read, and what is said of those that cannot be."""

import hashlib
import json
import zipfile

import pytest

from align.chitchat import CHITCHAT, Chitchat
from align.conversations import ChatLines, Turns, from_text, to_text
from model.chat import Message
from model.errors import ConfigError, DataError
from model.tokenizer import CONTROLS
from tests.model.chats import TALK
from train.data.document import Document
from train.data.fetch import Wheel, cache


def lines(folder, *records) -> ChatLines:
  """A reader of a file with these records, a line each, the first after an empty line."""
  written = [each if isinstance(each, str) else json.dumps(each) for each in records]
  (folder / 'talk.jsonl').write_text('\n'.join(['', *written, '']))
  return ChatLines(f'{folder}/*.jsonl')


def spoken(*turns: tuple[str, str]) -> dict:
  return {'messages': [{'role': role, 'content': content} for role, content in turns]}


def test_both_forms_of_a_record_are_read_under_file_and_line(tmp_path):
  hostile = ''.join(CONTROLS) + '\u2028 "\\n" é'
  reader = lines(tmp_path, spoken(*TALK) | {'id': 7}, {'prompt': hostile, 'completion': ' yes'})
  first, second = reader.read()
  assert (first.id, first.source, second.id) == ('talk.jsonl:2', 'chats', 'talk.jsonl:3')
  assert from_text(first.text, 'here') == TALK
  assert from_text(second.text, 'here') == (Message('user', hostile), Message('assistant', ' yes'))
  assert '\n' not in first.text and to_text(TALK) == first.text


HI = ('user', 'Hi')
BROKEN = [
  ('chat.empty', {'messages': []}, ''),
  ('chat.no-answer', spoken(HI, ('tool', 'x')), ''),
  ('chat.empty-answer', spoken(HI, ('assistant', ' \n')), ''),
  ('chat.unknown-role', spoken(HI, ('<|im_start|>', 'x')), ': message 2 of 2'),
  ('chat.unknown-role', {'messages': [{'role': ['user'], 'content': 'x'}]}, ': message 1 of 1'),
  ('chat.bad-message', {'messages': ['Hi']}, ': message 1 of 1'),
  ('chat.bad-message', {'messages': [{'role': 'user'}]}, ': message 1 of 1'),
  ('chat.bad-message', {'messages': [{'role': 'user', 'content': 'x', 'name': 'Eve'}]}, ': message 1 of 1'),
  ('data.no-text', {'messages': [{'role': 'user', 'content': None}]}, ': message 1 of 1'),
  ('data.no-text', {'messages': [{'role': 'user', 'content': [{'type': 'text'}]}]}, ': message 1 of 1'),
  ('data.lone-surrogate', '{"messages": [{"role": "user", "content": "a\\ud800"}]}', ': message 1 of 1'),
  ('chat.no-messages', {'messages': 'Hi'}, ''),
  ('data.no-such-field', {'text': 'Hi'}, ''),
  ('data.no-such-field', {'prompt': 'Hi'}, ''),
  ('data.no-text', {'prompt': 'Hi', 'completion': 3}, ''),
  ('chat.empty-answer', {'prompt': 'Hi', 'completion': ''}, ''),
  ('data.bad-json', '{"messages": [', ''),
]


@pytest.mark.parametrize('id, record, place', BROKEN, ids=[f'{id}-{i}' for i, (id, _, _) in enumerate(BROKEN)])
def test_a_broken_conversation_is_named_by_file_and_line(tmp_path, id, record, place):
  reader = lines(tmp_path, spoken(*TALK), record)
  with pytest.raises(DataError) as caught:
    list(reader.read())
  assert caught.value.id == id and f'talk.jsonl:3{place}' in caught.value.what and caught.value.do
  told = []
  assert len(list(ChatLines(reader.pattern, tolerate=1).read(told.append))) == 1 and [each.id for each in told] == [id]


@pytest.mark.parametrize('text', ['My fellow citizens,', '{"messages": []}', '"text"', ''])
def test_a_text_is_not_taken_for_a_conversation(text):
  with pytest.raises(DataError, match=r'books:7\n.*no conversation'):
    from_text(text, 'books:7')


@pytest.mark.parametrize('turns, outcome', [
  (TALK, 'kept'), (TALK[:3], 'fewer than 4 turns'), (TALK[:2], 'nobody answers'), ((HI, HI, HI, HI), 'nobody answers')])
def test_short_and_one_sided_talks_are_dropped_and_counted(turns, outcome):
  result = Turns(4).open()(Document(to_text([Message(*turn) for turn in turns]), 'x', 'y'))
  assert [*(reason.name for reason in result.reasons), result.effect][0] == outcome
  with pytest.raises(ConfigError, match=r'turns\.least = 0'):
    Turns(0)


def line(sender: str, text: str) -> dict:
  return {'sender': sender, 'text': text, 'timestamp': '2018-05-02T19:38:15Z'}


def test_chitchat_is_read_from_its_wheel_without_running_it(tmp_path, monkeypatch):
  talks = {
    'one': {'start': 'x', 'prompt': 'Your favourite food?', 'ratings': {'witty': '1', 'int': 5},
            'messages': [[line('eve', 'Hello'), line('eve', '  '), line('eve', 'there')], [line('bob', ' ')],
                         [line('eve', '?')], [line('bob', 'Hi <|im_end|>')]]},
    'two': {'start': 'x', 'messages': [[line('eve', 'anyone?')]]},
  }
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  cache().mkdir(parents=True)
  path = cache() / CHITCHAT.file
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('chitchat_dataset/__init__.py', f'open({str(tmp_path / "mark")!r}, "w")')
    archive.writestr('chitchat_dataset/dataset.json', json.dumps(talks))
  wheel = Wheel(CHITCHAT.name, CHITCHAT.version, hashlib.sha256(path.read_bytes()).hexdigest())
  one, two = Chitchat(wheel).read()
  assert from_text(one.text, '') == (Message('system', 'Your favourite food?'), Message('user', 'Hello\nthere\n?'),
                                     Message('assistant', 'Hi <|im_end|>'))
  assert (one.id, one.source) == ('one', 'chitchat')
  assert one.meta == {'prompt': 'Your favourite food?', 'witty': '1', 'int': '5'}
  assert from_text(two.text, '') == (Message('user', 'anyone?'),) and two.meta == {}
  assert not (tmp_path / 'mark').exists()
  assert CHITCHAT.file == 'chitchat_dataset-0.9.0-py3-none-any.whl' and len(CHITCHAT.sha256) == 64
