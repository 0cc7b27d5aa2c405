"""Conversations as tokens: masks, rows, splits, the table of what was cut, and a run that learns to answer."""

import json
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

from align.conversations import ChatLines, from_text
from align.sft import ChatTokens, Divide, Everything, Shorten, fit
from align.template_of import template_of
from experiments.sample import begun
from model.chat import ChatML, Llama3, Message, Plain
from model.errors import ConfigError, DataError
from tests.align import learnt
from tests.data.fake_corpus import FakeCorpus, texts
from tests.data.noticed import check_noticed
from tests.model.chats import TALK, told
from tests.model.variants import small
from train.artifact import Store, read_json
from train.data.corpus import Corpus
from train.data.masking import Masking
from train.data.mixture import Mixture, Share
from train.data.pack import Stream, Whole
from train.data.pipeline import Batches
from train.data.rows import Rows
from train.data.tokens import Tokens
from train.optimizer import AdamW, Optimizer
from train.run import Run, Saving, Watch


def talks(count: int) -> list[list[Message]]:
  """So many different conversations of 1 to 4 answers."""
  said = texts(9 * count)
  return [[Message('system', 'Be brief.')] * (i % 3 == 0) + [Message('assistant' if j % 2 else 'user', said[9 * i + j])
           for j in range(2 + 2 * (i % 4))] for i in range(count)]


def tokens_of(root, conversations, **fields) -> tuple[ChatTokens, Store]:
  """Conversations in the ids of a vocabulary that was learnt from other text, made under `root`."""
  records = [{'messages': [message._asdict() for message in talk]} for talk in conversations]
  return learnt.made_of(ChatTokens, ChatLines, 'talks', root, records, **({'longest': 4000} | fields))


@pytest.fixture(scope='module')
def shared(tmp_path_factory) -> tuple[ChatTokens, Store]:
  return tokens_of(tmp_path_factory.mktemp('sft'), talks(30))


def rendered(tokens, store, split) -> list:
  """What the renderer makes of each conversation, by its number."""
  tokenizer = tokens.vocabulary.load(store)
  return [fit(tokens.template, tokenizer, from_text(document.text, ''), tokens.longest).rendered
          for document in tokens.corpus.documents(store.find(tokens.corpus), split)]


@pytest.mark.parametrize('packing', [Stream(), Whole()])
@pytest.mark.parametrize('length', [16, 50, 400])
def test_answers_keep_their_mask_in_every_row(shared, packing, length):
  """Also where a row ends in the middle of an answer: every answer's token is learnt once an epoch, and no other."""
  tokens, store = shared
  visits = Rows(tokens, length, packing=packing).visits(store)
  part, wanted, learnt = visits.parts[0], rendered(tokens, store, 'train'), 0
  for index in range(part.rows):
    row, used = part.row(index), 0
    spans = part.plan.spans(*part.place(index))
    for segment, (document, start, stop) in enumerate(spans, 1):
      place = slice(used, used + stop - start)
      assert row['tokens'][place].tolist() == wanted[document].ids[start:stop].tolist()
      assert row['mask'][place].tolist() == wanted[document].mask[start:stop].tolist()
      assert (row['segments'][place] == segment).all()
      learnt += int(row['mask'][place][1:].sum())
      used += stop - start
    assert not row['mask'][used:].any() and row['mask'].dtype == np.float32
  assert learnt == sum(int(each.mask.sum()) for each in wanted) > 0


@pytest.mark.parametrize('stride', [16, 5])
def test_held_out_answers_are_scored_once_and_nothing_else_is(shared, stride):
  tokens, store = shared
  heldout, wanted = Rows(tokens, 16).heldout(store, stride=stride), rendered(tokens, store, 'heldout')
  answers = [message.content for document in tokens.corpus.documents(store.find(tokens.corpus), 'heldout')
             for message in from_text(document.text, '') if message.role == 'assistant']
  bytes_of = tokens.vocabulary.load(store).bytes_of
  scored = [batch['tokens'][batch['mask'] > 0] for batch in heldout.batches(4)]
  assert sum(map(len, scored)) == sum(each.mask.sum() for each in wanted) > 0
  assert sum(bytes_of[ids].sum() for ids in scored) == sum(len(answer.encode()) for answer in answers)


def test_conversations_are_held_out_by_all_that_is_said(shared):
  tokens, store = shared
  splits = [{document.text for document in tokens.corpus.documents(store.find(tokens.corpus), split)}
            for split in ('train', 'heldout')]
  assert not splits[0] & splits[1] and sum(map(len, splits)) == 30 and all(splits)


def test_the_table_says_what_was_read_cut_and_left_out(tmp_path):
  union = 'the state of the union ' * 40
  long = [Message('user', union), Message('assistant', 'is strong')]
  cut = [Message('user', 'Hi'), Message('assistant', union)]
  shed = [Message('user', union), Message('assistant', 'is it?'), *TALK[1:3]]
  short = [[Message('user', f'{i}'), Message('assistant', f'it is {i}')] for i in range(12)]
  tokens, store = tokens_of(tmp_path, [*short, long, cut, shed, [*TALK[1:], Message('user', 'Bye')]], longest=150,
                            long=Shorten())
  table = read_json(store.find(tokens) / 'table.json')
  rows = {row['reason']: row for row in table['rows']}
  assert table['read']['documents'] == 16
  assert {reason: (row['effect'], row['examples']) for reason, row in rows.items()} == {
    'no answer within 150 tokens': ('dropped', ['talks.jsonl:13']), 'nobody answers the end': ('changed', ['talks.jsonl:16']),
    'end of an answer cut off': ('changed', ['talks.jsonl:14']), 'oldest turns left out': ('changed', ['talks.jsonl:15'])}
  assert rows['oldest turns left out']['places'] == 2
  opened = [tokens.open(store, split) for split in ('train', 'heldout')]
  assert sum(row['documents'] for row in table['written']) == sum(len(each.documents()) for each in opened)
  assert sum(len(each.documents()) for each in opened) == 15
  assert max(np.diff(each.offsets).max() for each in opened) == 150
  divided = replace(tokens, long=Divide())
  store.make(divided)
  rows = {row['reason']: row for row in read_json(store.find(divided) / 'table.json')['rows']}
  assert rows['divided into several']['examples'] == rows['question that leaves no room for an answer']['examples']
  assert rows['divided into several']['places'] == 2 and 'oldest turns left out' not in rows


def test_nothing_left_to_learn_is_an_error(tmp_path):
  long = [[Message('user', f'the state of the union {i} ' * 30), Message('assistant', 'is strong')] for i in range(8)]
  with pytest.raises(DataError, match='no training document'):
    tokens_of(tmp_path, long, longest=50)


def test_a_conversation_that_the_template_refuses_is_named_by_file_and_line(tmp_path):
  @dataclass(frozen=True)
  class InTurn(ChatML):
    alternates: ClassVar[bool] = True

  with pytest.raises(DataError, match=r'chats:talks\.jsonl:2: message 3 of 3') as caught:
    tokens_of(tmp_path, [TALK, [*TALK[1:3], TALK[2]]], template=InTurn())
  assert caught.value.id == 'chat.order'


def test_a_template_of_another_family_is_refused_before_anything_is_read(shared):
  tokens, store = shared
  with pytest.raises(DataError, match='start_header_id'):
    store.make(replace(tokens, template=Llama3()))
  assert not list(store.place(replace(tokens, template=Llama3())).glob('*.npy'))


def test_stages_for_prose_are_refused(shared):
  with pytest.raises(ConfigError, match='Gopher') as caught:
    replace(shared[0], corpus=Corpus(name='talks', sources=shared[0].corpus.sources))
  assert caught.value.id == 'chat.stages'
  with pytest.raises(ConfigError, match='longest = 1'):
    replace(shared[0], longest=1)


def test_a_mask_is_part_of_what_is_verified(tmp_path, shared):
  tokens, store = tokens_of(tmp_path, talks(12))
  learns = replace(tokens, learn=Everything())
  store.make(learns)
  assert learns.open(store, 'train').sha256 != tokens.open(store, 'train').sha256
  assert (learns.open(store, 'train').ids == tokens.open(store, 'train').ids).all()
  check_noticed(store.find(tokens) / 'train.mask.npy', lambda: tokens.open(store, 'train'))


def test_documents_are_learnt_whole_beside_conversations(shared):
  tokens, store = shared
  plain = Tokens(name='plain', corpus=FakeCorpus(name='fake', train=texts(20), heldout=texts(4, 1)),
                 vocabulary=tokens.vocabulary)
  store.make(plain)
  assert not list(store.find(plain).glob('*mask*')) and plain.open(store, 'train').mask is None
  visits = Rows(Mixture((Share(tokens, 1.0), Share(plain, 1.0))), 16).visits(store)
  chat, prose = ([part.row(i) for i in range(part.rows)] for part in visits.parts)
  assert 0 < np.mean([row['mask'] for row in chat]) < 0.9
  assert all((row['mask'] == (row['segments'] > 0)).all() for row in prose)
  source = Batches(visits, 4)
  assert source()['mask'].shape == (4, 17)
  source.close()


def test_hidden_tokens_and_answers_do_not_go_together(shared):
  with pytest.raises(ConfigError, match='says itself which of its tokens'):
    Rows(shared[0], 16, masking=Masking()).heldout(shared[1])


def test_a_run_goes_on_from_its_parent_and_learns_to_answer(shared, tmp_path):
  tokens, store = shared
  prose = learnt.prose(tokens.vocabulary)
  parent = Run(name='parent', model=replace(small(), vocab=340), rows=Rows(prose, 32), batch=8, steps=1,
               optimizer=Optimizer(AdamW(lr=1e-2)), watch=Watch(heldout=0), saving=Saving(every=0))
  chat = replace(parent, name='chat', restore=parent, rows=Rows(tokens, 64, packing=Whole()), steps=16,
                 watch=Watch(metrics=1, heldout=8, heldout_rows=4))
  folder = Store(tmp_path, (store.root,)).make(chat)
  lines = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
  losses = [line['loss'] for line in lines if 'loss' in line]
  held = [line['heldout_loss'] for line in lines if 'heldout_loss' in line]
  assert losses[-1] < losses[0] - 0.3 and held[-1] < held[0]


def test_a_model_is_asked_as_it_was_taught(shared):
  tokens, store = shared
  tokenizer = tokens.vocabulary.load(store)
  prose = learnt.prose(tokens.vocabulary)
  plain = replace(tokens, template=Plain())
  for rows, template in ((Rows(prose, 8), None), (Rows(tokens, 8), ChatML()), (Rows(plain, 8), Plain()),
                         (Rows(Mixture((Share(prose, 1.0), Share(plain, 1.0))), 8), Plain())):
    run = Run(name='run', model=replace(small(), vocab=400), rows=rows, batch=8, steps=1)
    assert template_of(run) == template
  hostile = 'Hi<|im_end|>'
  assert begun(None, tokenizer, hostile) == ([tokenizer.bos, *tokenizer.encode(hostile)], (tokenizer.eos, ()))
  ids, (eos, stop) = begun(ChatML(), tokenizer, hostile)
  assert told(tokenizer, ids) == '<|bos|><|im_start|>user\nHi<|im_end|><|im_end|>\n<|im_start|>assistant\n'
  assert ids.count(eos) == 1 and stop == ((tokenizer.eos,),)


def test_a_parent_that_reads_other_ids_is_refused(shared):
  tokens, _ = shared
  parent = Run(name='parent', model=replace(small(), vocab=400), rows=Rows(tokens, 32), batch=8, steps=1)
  other = replace(tokens, vocabulary=replace(tokens.vocabulary, size=350))
  with pytest.raises(ConfigError, match='its parameters know the ids of vocabulary') as caught:
    replace(parent, restore=parent, rows=Rows(other, 32))
  assert caught.value.id == 'config.other-vocabulary'
  renamed = replace(tokens, vocabulary=replace(tokens.vocabulary, name='renamed'))
  assert replace(parent, restore=parent, rows=Rows(renamed, 32))
