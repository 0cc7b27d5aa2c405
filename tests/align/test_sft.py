"""Fine-tuning on conversations: what is learnt of them, what is cut, and that no packing changes it."""

import json
from dataclasses import dataclass, replace
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from align.conversations import ChatLines, from_text
from align.sft import (
  Answers,
  ChatTokens,
  Divide,
  Everything,
  Fitted,
  LastAnswer,
  NoAnswerLeft,
  Shorten,
  cuts,
  exchanges,
  fit,
)
from align.templates import template_of
from experiments.sample import begun
from model.chat import ChatML, Gemma, Llama3, Message, Plain, prompt, render
from model.errors import ConfigError, DataError
from tests.data.fake_corpus import FakeCorpus, texts
from tests.model.chats import TALK, own, told
from tests.model.variants import VARIANTS, made, small
from train.artifact import Store, read_json
from train.data.corpus import Corpus
from train.data.masking import Masking
from train.data.mixture import Mixture, Share
from train.data.pack import Stream, Whole
from train.data.pipeline import Batches
from train.data.rows import Rows
from train.data.tokens import Tokens
from train.data.vocabulary import Vocabulary
from train.objectives import NextToken
from train.optimizer import AdamW, Optimizer
from train.run import Run, Saving, Watch

TEMPLATES = [ChatML(), Llama3(), Gemma(), Plain(), ChatML('Stay calm.')]
EVERY = pytest.mark.parametrize('template', TEMPLATES, ids=lambda each: f'{type(each).__name__}{"+system" * bool(each.system)}')
SAID = st.text('ab \n', min_size=1, max_size=9).map(lambda text: f'x{text}')
TALKS = st.tuples(st.lists(SAID, max_size=1), st.lists(st.tuples(SAID, SAID), min_size=1, max_size=5)).map(
    lambda drawn: [*(Message('system', text) for text in drawn[0]),
                   *(message for asked, said in drawn[1] for message in (Message('user', asked), Message('assistant', said)))])


@EVERY
@settings(max_examples=80, deadline=None)
@given(talk=TALKS, length=st.integers(1, 120))
def test_laws_of_truncation(template, talk, length):
  """Oldest turns go whole and as few as will do; the system message stays; an answer is cut only when all else is gone."""
  tokenizer = own(template)
  scene, turns = talk[:talk[0].role == 'system'], talk[talk[0].role == 'system':]
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
  tokenizer = own(template)
  scene, turns = talk[:talk[0].role == 'system'], talk[talk[0].role == 'system':]
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


def written(folder, talks) -> ChatLines:
  records = [{'messages': [message._asdict() for message in talk]} for talk in talks]
  (folder / 'talks.jsonl').write_text('\n'.join(map(json.dumps, records)))
  return ChatLines(f'{folder}/talks.jsonl')


def talks(count: int) -> list[list[Message]]:
  """So many different conversations of 1 to 4 answers."""
  said = texts(9 * count)
  return [[Message('system', 'Be brief.')] * (i % 3 == 0) + [Message('assistant' if j % 2 else 'user', said[9 * i + j])
           for j in range(2 + 2 * (i % 4))] for i in range(count)]


def tokens_of(root, conversations, **fields) -> tuple[ChatTokens, Store]:
  """Conversations in the ids of a vocabulary that was learnt from other text, made under `root`."""
  corpus = Corpus(name='talks', sources=(written(root, conversations),), stages=(), heldout_modulo=4, workers=1)
  vocabulary = Vocabulary(name='vocabulary', corpus=FakeCorpus(name='fake', train=texts(20)), size=340)
  tokens = ChatTokens(name='talks-tokens', corpus=corpus, vocabulary=vocabulary, **({'longest': 4000} | fields))
  store = Store(root / 'runs')
  store.make(tokens)
  return tokens, store


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
  assert sum(batch['mask'].sum() for batch in heldout.batches(4)) == sum(each.mask.sum() for each in wanted) > 0
  assert heldout.bytes == sum(len(answer.encode()) for answer in answers)


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
  path = store.find(tokens) / 'train.mask.npy'
  learns = replace(tokens, learn=Everything())
  store.make(learns)
  assert learns.open(store, 'train').sha256 != tokens.open(store, 'train').sha256
  assert (learns.open(store, 'train').ids == tokens.open(store, 'train').ids).all()
  data = bytearray(path.read_bytes())
  data[-1] ^= 1
  path.write_bytes(data)
  with pytest.raises(DataError, match=r'data\.changed'):
    tokens.open(store, 'train')
  path.unlink()
  with pytest.raises(DataError, match=r'data\.damaged'):
    tokens.open(store, 'train')


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


def batch_of(*rows: list) -> dict:
  """Rows of whole conversations, each given as a list of them, padded to one width."""
  width = max(sum(len(each.ids) for each in row) for row in rows)
  columns = {'tokens': np.zeros((len(rows), width), np.int32), 'segments': np.zeros((len(rows), width), np.int32),
             'mask': np.zeros((len(rows), width), np.float32)}
  for index, row in enumerate(rows):
    used = 0
    for segment, each in enumerate(row, 1):
      place = slice(used, used + len(each.ids))
      for name, value in (('tokens', each.ids), ('segments', segment), ('mask', each.mask)):
        columns[name][index, place] = value
      used = place.stop
  return {name: jnp.asarray(value) for name, value in columns.items()}


@pytest.mark.parametrize('variant', ['llama', 'gpt2', 'gemma3'])
def test_packed_conversations_are_judged_as_if_alone(variant):
  """Of two in one row neither sees the other, and positions begin again. Negative control: as one segment they do see."""
  config = replace(VARIANTS[variant], vocab=own(ChatML()).size)
  model, params = made(config)
  short = [render(ChatML(), own(ChatML()), [Message('user', asked), Message('assistant', said)])
           for asked, said in (('a', 'Hi'), ('b', 'a!'))]
  width = sum(len(each.ids) for each in short)
  loss = jax.jit(lambda batch: NextToken()(model)(params, {}, batch, jax.random.key(0)).objective)
  if variant == 'gpt2':
    model, params = made(replace(config, positions=replace(config.positions, length=width)))
  packed, alone = loss(batch_of(short)), loss(batch_of(*([each] for each in short)))
  assert packed.weight == alone.weight == sum(int(each.mask.sum()) for each in short)
  np.testing.assert_allclose(packed.total, alone.total, rtol=1e-5)
  seen = loss(batch_of(short) | {'segments': jnp.ones((1, width), jnp.int32)})
  assert abs(float(seen.total - packed.total)) > 1e-3


def test_a_batch_of_questions_alone_weighs_nothing():
  model, params = made(replace(small(), vocab=own(ChatML()).size))
  question = batch_of([render(ChatML(), own(ChatML()), TALK[:2])])
  loss, gradient = jax.jit(jax.value_and_grad(
      lambda params: NextToken(z_loss=1e-3)(model)(params, {}, question, jax.random.key(0)).objective.total))(params)
  assert loss == 0 and all((leaf == 0).all() for leaf in jax.tree.leaves(gradient))
  objective = jax.jit(NextToken()(model))(params, {}, question, jax.random.key(0)).objective
  assert objective.weight == 0 and objective.value() == 0


def test_a_run_goes_on_from_its_parent_and_learns_to_answer(shared, tmp_path):
  tokens, store = shared
  prose = Tokens(name='prose', corpus=FakeCorpus(name='fake', train=texts(20)), vocabulary=tokens.vocabulary)
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
  prose = Tokens(name='prose', corpus=FakeCorpus(name='fake', train=texts(20)), vocabulary=tokens.vocabulary)
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
