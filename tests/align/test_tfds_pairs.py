"""Pairs out of TFDS: both layouts, from a dataset that is written here, and what is said of examples that are no pairs."""

import json
import sys

import pytest

from align.conversations import Messages
from align.preferences import Pair, pair_in
from align.tfds_pairs import Apart, TfdsPairs, Transcripts
from model.chat import Message
from model.errors import ConfigError, DataError
from train.data.document import Document

TALK = '\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: How are you?'
FIELDS = {'chosen': 'text', 'rejected': 'source'}          # what the writer's example has of strings


def written(root, *rows: tuple[str, str, str]) -> str:
  """A data_dir with the dataset `athanor_text`, whose examples have these as text, source and id."""
  from train.data.tfds_builder import write
  write(root, {'train': lambda: (Document(*row) for row in rows)})
  return str(root)


def pairs(reader: TfdsPairs) -> list[Pair]:
  return [pair_in(json.loads(document.text), 'here') for document in reader.read()]


def said(*texts: str) -> Messages:
  return tuple(Message('assistant' if place % 2 else 'user', text) for place, text in enumerate(texts))


def test_transcripts_are_parted_after_the_last_question_that_they_share(tmp_path):
  rows = [(f'{TALK}\n\nAssistant: Well.', f'{TALK}\n\nAssistant: Human: none of yours', 'a'),
          ('\n\nHuman: A?\n\nAssistant: B.\n\nHuman: C?\n\nAssistant: D.', '\n\nHuman: A?\n\nAssistant: E.', 'b'),
          ('Human: é\n\nand more\n\nAssistant: yes', '\n\nHuman: é\n\nand more\n\nAssistant: no', 'c')]
  reader = TfdsPairs('athanor_text', data_dir=written(tmp_path, *rows), layout=Transcripts(**FIELDS), source='helpful')
  found = {document.id: pair for document, pair in zip(reader.read(), pairs(reader))}
  assert found == {
    'a': Pair(said('Hi', 'Hello.', 'How are you?'), (Message('assistant', 'Well.'),),
              (Message('assistant', 'Human: none of yours'),)),
    'b': Pair(said('A?'), said('A?', 'B.', 'C?', 'D.')[1:], (Message('assistant', 'E.'),)),
    'c': Pair(said('é\n\nand more'), (Message('assistant', 'yes'),), (Message('assistant', 'no'),))}
  assert {document.source for document in reader.read()} == {'helpful'} and 'tensorflow' not in sys.modules


def test_fields_apart(tmp_path):
  layout = Apart(prompt='id', **FIELDS)
  reader = TfdsPairs('athanor_text', data_dir=written(tmp_path, ('good', 'bad', 'which?')), layout=layout)
  assert pairs(reader) == [Pair(said('which?'), (Message('assistant', 'good'),), (Message('assistant', 'bad'),))]
  example = {'text': b'good', 'source': b'bad', 'id': b'which?', 'gap': 2.5}
  assert pair_in(Apart('id', 'text', 'source', 'gap')(example, 'here'), 'here').margin == 2.5
  for field, id in (('id', 'pair.bad-number'), ('score', 'data.no-such-field')):
    with pytest.raises(DataError) as caught:
      Apart('id', 'text', 'source', field)(example, 'here')
    assert caught.value.id == id


@pytest.mark.parametrize('chosen, rejected, id', [
  ('\n\nHuman: A?\n\nAssistant: B', '\n\nHuman: C?\n\nAssistant: D', 'pair.no-shared-prompt'),
  ('so it goes', '\n\nHuman: A?\n\nAssistant: D', 'pair.no-transcript'),
  (TALK + '\n\nAssistant: x', TALK + '\n\nAssistant: x', 'pair.alike'),
  (TALK + '\n\nAssistant: x', TALK + '\n\nAssistant:', 'chat.empty-answer'), (TALK + '\n\nAssistant: x', TALK, 'chat.empty')])
def test_an_example_that_is_no_pair_is_named_and_may_be_tolerated(tmp_path, chosen, rejected, id):
  fine = (TALK + '\n\nAssistant: yes', TALK + '\n\nAssistant: no', 'fine')
  folder = written(tmp_path, fine, (chosen, rejected, 'odd'))
  reader = TfdsPairs('athanor_text', data_dir=folder, layout=Transcripts(**FIELDS))
  with pytest.raises(DataError, match=r'athanor_text\[train\] in .*: record \d') as caught:
    list(reader.read())
  assert caught.value.id == id
  left_out: list[DataError] = []
  tolerant = TfdsPairs('athanor_text', data_dir=folder, layout=Transcripts(**FIELDS), tolerate=1)
  assert len(list(tolerant.read(left_out.append))) == 1
  assert [error.id for error in left_out] == [id]


def test_bad_marks_and_missing_fields_are_refused(tmp_path):
  for fields in ({'user': ' '}, {'user': 'x', 'assistant': 'x'}):
    with pytest.raises(ConfigError, match='out-of-range'):
      Transcripts(**fields)
  folder = written(tmp_path, (TALK + '\n\nAssistant: yes', TALK + '\n\nAssistant: no', 'fine'))
  with pytest.raises(DataError, match="'id', 'meta', 'source', 'text'"):
    list(TfdsPairs('athanor_text', data_dir=folder).read())
