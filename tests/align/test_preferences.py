"""Preferences: what a pair is, which pairs ratings give, and that no side of one loses its answer on the way to tokens."""

import json
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from align.conversations import to_text
from align.fit_answers import fit_answers
from align.pair_tokens import PairTokens
from align.preferences import Given, Pair, PairLines, Rated, pair_in, pair_text
from model.chat import ChatML, Message, render
from model.errors import ConfigError, DataError
from tests.align.learnt import made_of
from tests.data.fake_corpus import texts
from tests.data.noticed import check_noticed
from tests.model.chats import EVERY, SAID, TALK, own
from train.artifact import Store, read_json
from train.data.corpus import Corpus
from train.data.document import Document


def pairs_of(count: int) -> list[dict]:
  """Records of so many pairs, two of each prompt."""
  said = texts(3 * count)
  return [{'prompt': said[i // 2], 'chosen': said[3 * i + 1], 'rejected': said[3 * i + 2], 'margin': i / 2}
          for i in range(count)]


def tokens_of(root, records, **fields) -> tuple[PairTokens, Store]:
  """The tokens of these pairs, made."""
  return made_of(PairTokens, PairLines, 'pairs', root, records, **({'longest': 1000} | fields))


@pytest.fixture(scope='module')
def shared(tmp_path_factory) -> tuple[PairTokens, Store]:
  return tokens_of(tmp_path_factory.mktemp('pairs'), pairs_of(30))


def test_a_pair_is_its_text():
  record = {'messages': [TALK[0]._asdict(), TALK[1]._asdict()], 'chosen': 'yes', 'rejected': [TALK[4]._asdict()], 'label': 0.75}
  pair = pair_in(record, 'here')
  assert pair == Pair(TALK[:2], (Message('assistant', 'yes'),), TALK[4:], 0.0, 0.75)
  assert pair_in(json.loads(pair_text(pair)), 'there') == pair


GOOD = {'prompt': 'a', 'chosen': 'b', 'rejected': 'c'}


@pytest.mark.parametrize('change, id, says', [
  ({'score': 1}, 'pair.unknown-field', 'score'), ({'messages': []}, 'pair.no-prompt', 'both'),
  ({'chosen': 3}, 'data.no-text', "'chosen'"), ({'rejected': ' '}, 'chat.empty-answer', "'rejected'"),
  ({'rejected': 'b'}, 'pair.alike', 'neither'), ({'prompt': []}, 'chat.empty', "'prompt'"),
  ({'margin': -1}, 'pair.bad-number', "'margin' is -1"), ({'margin': float('nan')}, 'pair.bad-number', 'nan'),
  ({'label': 1.5}, 'pair.bad-number', "'label' is 1.5"), ({'label': True}, 'pair.bad-number', 'True'),
  ({'chosen': [{'role': 'user', 'content': 'b'}]}, 'chat.no-answer', "'chosen'"),
  ({'chosen': [{'role': 'judge', 'content': 'b'}]}, 'chat.unknown-role', 'message 1 of 1')])
def test_a_bad_pair_is_named_by_file_line_and_field(tmp_path, change, id, says):
  (tmp_path / 'pairs.jsonl').write_text(f'{json.dumps(GOOD)}\n{json.dumps(GOOD | change)}\n')
  with pytest.raises(DataError, match=r'pairs\.jsonl:2') as caught:
    list(PairLines(f'{tmp_path}/pairs.jsonl').read())
  assert caught.value.id == id and says in str(caught.value)


def test_a_pair_without_a_field_is_refused():
  for name in GOOD:
    with pytest.raises(DataError, match=name):
      pair_in({field: value for field, value in GOOD.items() if field != name}, 'here')


@EVERY
@settings(max_examples=60, deadline=None)
@given(scene=st.lists(SAID, max_size=1), said=st.lists(SAID, min_size=3, max_size=9).filter(lambda said: len(said) % 2),
       length=st.integers(1, 90))
def test_laws_of_truncation(template, scene, said, length):
  """Both sides follow one prompt, cut as little as will do; answers keep their beginning, or the pair is left out."""
  tokenizer, (*asked, chosen, rejected) = own(template), [*said, 'xlast']
  roles = ('user', 'assistant')
  turns = [Message(roles[i % 2], text) for i, text in enumerate(asked)][:len(asked) - (len(asked) % 2 == 0)]
  opening = tuple(Message('system', text) for text in scene)
  pair = Pair((*opening, *turns), (Message('assistant', chosen),), (Message('assistant', rejected),))

  def longest(left: int) -> int:
    return max(len(render(template, tokenizer, (*opening, *turns[left:], *side)).ids) for side in (pair.chosen, pair.rejected))

  def asks(left: int) -> int:
    return len(render(template, tokenizer, (*opening, *turns[left:])).ids)

  fit = fit_answers(template, tokenizer, pair.prompt, (pair.chosen, pair.rejected), length, 'here')
  if fit is None:
    assert longest(len(turns) - 1) > length and length <= asks(len(turns) - 1) + 9
    return
  left = fit.turns
  assert left % 2 == 0 and (not left or longest(left - 2) > length)
  assert not fit.tokens or left == len(turns) - 1
  for rendered, side in zip(fit.answers, (pair.chosen, pair.rejected)):
    ids, mask = render(template, tokenizer, (*opening, *turns[left:], *side))
    assert rendered.ids.tolist() == ids[:length].tolist()
    assert rendered.mask.any() and not rendered.mask[:asks(left)].any()
    assert rendered.mask[asks(left):].tolist() == mask[asks(left):length].tolist()


def test_what_is_stored_is_what_the_renderer_makes_of_both_sides(shared):
  tokens, store = shared
  tokenizer, seen = tokens.vocabulary.load(store), 0
  for split in ('train', 'heldout'):
    opened = tokens.open(store, split)
    for index, (_, pair) in enumerate(Given()(tokens.corpus, store.find(tokens.corpus), split, Counter())):
      row = opened.row(index, tokens.longest)
      for side, messages in enumerate((pair.chosen, pair.rejected)):
        ids, mask = render(ChatML(), tokenizer, (*pair.prompt, *messages))
        assert row['tokens'][side, :len(ids)].tolist() == ids.tolist()
        assert row['mask'][side, :len(ids)].tolist() == mask.tolist() and row['mask'].sum() > 0
        assert row['segments'][side].sum() == len(ids) and not row['mask'][side, len(ids):].any()
      assert row['margin'] == np.float32(pair.margin) and row['label'] == 1
      seen += 1
    assert len(opened) == index + 1
  assert seen == 30 and isinstance(tokens.open(store, 'train').tokens.ids, np.memmap)


def test_no_prompt_is_on_both_sides(shared):
  tokens, store = shared
  sides = [[to_text(pair.prompt) for _, pair in Given()(tokens.corpus, store.find(tokens.corpus), split, Counter())]
           for split in ('train', 'heldout')]
  assert all(sides) and not set(sides[0]) & set(sides[1]) and len(set(sides[0])) < len(sides[0])


def test_the_table_says_what_was_read_cut_and_left_out(tmp_path):
  union = 'the state of the union ' * 40
  short = [{'prompt': f'q{i}', 'chosen': f'yes {i}', 'rejected': 'no'} for i in range(20)]
  long = [{'prompt': union, 'chosen': 'yes', 'rejected': 'no'}, {'prompt': 'a', 'chosen': union + 'x', 'rejected': union + 'y'},
          {'prompt': 'a', 'chosen': union, 'rejected': 'b'}]
  tokens, store = tokens_of(tmp_path, [*short, *long], longest=150)
  table = Counter()
  for counts in read_json(store.find(tokens) / 'table.json').values():
    table.update(counts)
  left_out = {what: count for what, count in table.items() if what.startswith('pairs left out')}
  assert left_out == {'pairs left out: no answer within 150 tokens': 1, 'pairs left out: alike once they were cut': 1}
  assert table['pairs read'] == 23 and table['pairs'] == 21 and table['pairs with ends of answers cut off'] == 1
  assert sum(len(tokens.open(store, split)) for split in ('train', 'heldout')) == 21


def test_a_changed_margin_is_found(tmp_path):
  tokens, store = tokens_of(tmp_path, pairs_of(20))
  check_noticed(store.find(tokens) / 'train.judged.npy', lambda: tokens.open(store, 'train'))


def test_nothing_left_is_an_error(tmp_path):
  with pytest.raises(DataError, match=r'pair\.none'):
    tokens_of(tmp_path, pairs_of(20), longest=3)


@dataclass(frozen=True)
class Talks:
  """As much of a corpus as a pairing reads: documents of the two splits."""

  train: tuple[Document, ...]
  heldout: tuple[Document, ...] = ()
  heldout_modulo: int = 4

  def documents(self, folder, split):
    yield from getattr(self, split)


def talk(id: str, ratings: dict, topic: str = 'books', turns: int = 6) -> Document:
  said = [Message('assistant' if i % 2 else 'user', f'{id} {i}') for i in range(turns)]
  text = to_text([Message('system', topic)] * bool(topic) + said)
  return Document(text, 'talks', id, {name: str(value) for name, value in ratings.items()})


def rated(witty, upbeat, interesting) -> dict:
  return {'witty': witty, 'upbeat': upbeat, 'interesting': interesting}


def paired(pairing: Rated, *documents: Document) -> tuple[list, Counter]:
  counts: Counter = Counter()
  return list(pairing(Talks(documents), None, 'train', counts)), counts


def test_conversations_are_paired_by_topic_and_rating():
  pairs, counts = paired(
      Rated(gap=3.0), talk('good', rated(9, 9, 9)), talk('bad', rated(1, 2, 3)), talk('fair', rated(7, 7, 7)),
      talk('untouched', rated(5, 5, 5)), talk('elsewhere', rated(1, 1, 1), 'films'), talk('short', rated(1, 1, 1), turns=5),
      talk('unrated', {}), talk('no topic', rated(1, 1, 1), ''))
  assert {id: pair.margin for id, pair in pairs} == {'talks:good > talks:bad': 7.0, 'talks:fair > talks:bad': 5.0}
  assert all(pair.prompt == (Message('system', 'books'),) and len(pair.chosen) == len(pair.rejected) == 6 for _, pair in pairs)
  left_out = {what.split(': ')[1]: count for what, count in counts.items() if what.startswith('conversations left out')}
  assert left_out == {'the slider was never moved': 1, 'fewer than 6 turns': 1, 'not rated': 1, 'no opening': 1,
                      'no partner so much better or worse': 1}
  assert counts['conversations read'] == sum(left_out.values()) + counts['conversations paired'] == 8


def test_a_mean_of_five_is_kept_where_the_slider_was_moved():
  pairs, _ = paired(Rated(gap=4.0), talk('mixed', rated(1, 5, 9)), talk('good', rated(9, 9, 9)))
  assert [pair.margin for _, pair in pairs] == [4.0]


@pytest.mark.parametrize('cap', [1, 3, 100])
def test_no_conversation_dominates(cap):
  documents = [talk(f'{i}', rated(1 + i % 10, 1, 1), f'topic {i % 2}') for i in range(40)]
  pairs, counts = paired(Rated(gap=1.0, cap=cap), *documents)
  used = Counter(side for id, _ in pairs for side in id.split(' > '))
  assert 0 < max(used.values()) <= cap and len({id for id, _ in pairs}) == len(pairs)
  every, _ = paired(Rated(gap=1.0, cap=100), *documents)
  assert {id for id, _ in pairs} <= {id for id, _ in every}
  assert len(every) == len(pairs) + counts[f'pairs left out: a conversation is in {cap} already']
  assert [id for id, _ in pairs] == [id for id, _ in paired(Rated(gap=1.0, cap=cap), *documents)[0]]


def test_conversations_of_the_two_sides_never_meet():
  documents = tuple(talk(f'{i}', rated(1 + i % 10, 1, 1)) for i in range(40))
  corpus, sides = Talks(documents[:30], documents[30:]), {}
  for split in ('train', 'heldout'):
    sides[split] = {to_text(side) for _, pair in Rated(gap=1.0)(corpus, None, split, Counter()) for side in pair[1:3]}
  assert all(sides.values()) and not sides['train'] & sides['heldout']


def test_a_rating_that_is_no_number_is_named():
  with pytest.raises(DataError, match='talks:odd: rated 9, high, 3'):
    paired(Rated(), talk('odd', rated(9, 'high', 3)))


def test_settings_and_stages_that_suit_no_pairs_are_refused(shared):
  for fields in ({'gap': 0.0}, {'cap': 0}, {'least': 0}, {'ratings': ()}):
    with pytest.raises(ConfigError, match='out-of-range'):
      Rated(**fields)
  with pytest.raises(ConfigError, match='longest = 1'):
    replace(shared[0], longest=1)
  with pytest.raises(ConfigError, match='Gopher') as caught:
    replace(shared[0], corpus=Corpus(name='pairs', sources=shared[0].corpus.sources))
  assert caught.value.id == 'pair.stages'
