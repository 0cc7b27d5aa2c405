"""Labels: what one is, where they come from, and that what stands beside an answer in tokens is never the answer itself."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from align.conversations import to_text
from align.label_tokens import LabelTokens
from align.labels import Criticised, Halves, Label, LabelLines, Single, label_in, label_text
from align.preferences import Given, PairLines, Rated
from align.review_pairs import SameFilm
from align.reviews import asks
from model.chat import ChatML, Message, render
from model.errors import ConfigError, DataError
from tests.align.learnt import made_of
from tests.align.test_preferences import pairs_of
from tests.align.test_review_pairs import REVIEWS, Shelf
from tests.data.fake_corpus import texts
from tests.data.noticed import check_noticed
from tests.model.chats import TALK
from train.artifact import Store, read_json
from train.data.corpus import Corpus

GOOD = {'prompt': 'a', 'answer': 'b', 'label': True}


def labels_of(count: int) -> list[dict]:
  said = texts(2 * count)
  return [{'prompt': said[i // 2], 'answer': said[count + i], 'label': i % 3 > 0} for i in range(count)]


def tokens_of(root, records, **fields) -> tuple[LabelTokens, Store]:
  """The tokens of these labels, made."""
  return made_of(LabelTokens, LabelLines, 'labels', root, records, **({'longest': 1000} | fields))


@pytest.fixture(scope='module')
def shared(tmp_path_factory) -> tuple[LabelTokens, Store]:
  return tokens_of(tmp_path_factory.mktemp('labels'), labels_of(30))


def test_a_label_is_its_text():
  record = {'messages': [TALK[0]._asdict(), TALK[1]._asdict()], 'answer': 'yes', 'label': False}
  label = label_in(record, 'here')
  assert label == Label(TALK[:2], (Message('assistant', 'yes'),), False)
  assert label_in(json.loads(label_text(label)), 'there') == label


@pytest.mark.parametrize('change, id, says', [
  ({'margin': 1}, 'label.unknown-field', 'margin'), ({'label': 1}, 'label.no-label', "'label' is 1"),
  ({'label': None}, 'label.no-label', 'None'), ({'answer': ' '}, 'chat.empty-answer', "'answer'"),
  ({'answer': 3}, 'data.no-text', "'answer'"), ({'messages': []}, 'pair.no-prompt', 'both'),
  ({'prompt': []}, 'chat.empty', "'prompt'")])
def test_a_bad_label_is_named_by_file_line_and_field(tmp_path, change, id, says):
  (tmp_path / 'labels.jsonl').write_text(f'{json.dumps(GOOD)}\n{json.dumps(GOOD | change)}\n')
  with pytest.raises(DataError, match=r'labels\.jsonl:2') as caught:
    list(LabelLines(f'{tmp_path}/labels.jsonl').read())
  assert caught.value.id == id and says in str(caught.value)


def test_a_pair_is_a_good_label_and_a_bad_one(tmp_path):
  (tmp_path / 'pairs.jsonl').write_text('\n'.join(map(json.dumps, pairs_of(6))))
  corpus = Corpus(name='pairs', sources=(PairLines(f'{tmp_path}/pairs.jsonl'),), stages=(), heldout_modulo=4, workers=1)
  store = Store(tmp_path / 'runs')
  folder = store.make(corpus)
  for split in ('train', 'heldout'):
    pairs = [pair for _, pair in Given()(corpus, folder, split, Counter())]
    wanted = [Label(pair.prompt, side, good) for pair in pairs for side, good in ((pair.chosen, True), (pair.rejected, False))]
    assert [label for _, label in Halves(Given())(corpus, folder, split, Counter())] == wanted
  assert Halves(Rated()).stages == Rated.stages and Halves(SameFilm()).stages == SameFilm.stages


def test_a_review_is_good_where_it_was_asked_for():
  counts: Counter = Counter()
  found = [label for _, label in Criticised()(Shelf(REVIEWS), None, 'train', counts)]
  assert len(found) == 2 * len(REVIEWS) == 2 * counts['reviews read']
  for label in found:
    wanted = 'good' if label.prompt == asks('heat', 'fresh') or label.prompt == asks('speed', 'fresh') else 'bad'
    assert label.good == label.answer[0].content.startswith(wanted)
  only = [label for _, label in Criticised(asked=('rotten',))(Shelf(REVIEWS), None, 'train', Counter())]
  assert len(only) == len(REVIEWS) and all('unfavourable' in label.prompt[0].content for label in only)
  with pytest.raises(ConfigError, match=r'pair\.films'):
    list(Criticised()(replace(Shelf(REVIEWS), heldout_by=None), None, 'train', Counter()))


def test_what_is_stored_is_the_prompt_with_its_answer_and_with_anothers(shared):
  """Id for id what the renderer makes of them; all answers are others' in turn, and none stands after its own prompt twice."""
  tokens, store = shared
  tokenizer, seen = tokens.vocabulary.load(store), 0
  for split in ('train', 'heldout'):
    opened = tokens.open(store, split)
    labels = [label for _, label in Single()(tokens.corpus, store.find(tokens.corpus), split, Counter())]
    partners = [opened.partner(index) for index in range(len(labels))]
    assert sorted(partners) == list(range(len(labels))) and all(i != j for i, j in enumerate(partners))
    for index, (label, partner) in enumerate(zip(labels, partners)):
      row = opened.row(index, tokens.longest)
      assert row['label'] == label.good
      for side, answer in enumerate((label.answer, labels[partner].answer)):
        ids, mask = render(ChatML(), tokenizer, (*label.prompt, *answer))
        assert row['tokens'][side, :len(ids)].tolist() == ids.tolist() and row['segments'][side].sum() == len(ids)
        assert row['mask'][side, :len(ids)].tolist() == mask.tolist() and not row['mask'][side, len(ids):].any()
      seen += 1
    assert len(opened) == len(labels)
  assert seen == 30 and isinstance(opened.tokens.ids, np.memmap)


def test_the_seed_alone_says_who_gets_whose_answer(shared):
  tokens, store = shared
  again, other = tokens.open(store, 'train'), replace(tokens.open(store, 'train'), seed=1)
  def partners(split):
    return [split.partner(index) for index in range(len(split))]
  assert partners(tokens.open(store, 'train')) == partners(again) != partners(other)


def test_an_answer_that_says_the_same_is_no_mismatch(tmp_path):
  records = [{'prompt': f'q{i}', 'answer': 'yes' if i % 3 else f'no {i}', 'label': True} for i in range(24)]
  tokens, store = tokens_of(tmp_path, records)
  opened = tokens.open(store, 'train')
  for index in range(len(opened)):
    row = opened.row(index, 100)
    own, other = (side[mask > 0].tolist() for side, mask in zip(row['tokens'], row['mask']))
    assert own != other
  (tmp_path / 'same').mkdir()
  tokens, store = tokens_of(tmp_path / 'same', [{'prompt': f'q{i}', 'answer': 'yes', 'label': True} for i in range(9)])
  with pytest.raises(DataError, match=r'label\.one-answer'):
    tokens.open(store, 'train').row(0, 100)


@pytest.mark.parametrize('longest', [45, 200])
def test_a_mismatched_answer_is_cut_and_never_lost(tmp_path, longest):
  """However long the prompt that it comes after: that one left room for its own."""
  records = [{'prompt': 'of ' * (i % 7) + f'q{i}', 'answer': 'of the union ' * (i % 9 + 1) + f'{i}', 'label': True}
             for i in range(30)]
  tokens, store = tokens_of(tmp_path, records, longest=longest)
  table = read_json(store.find(tokens) / 'table.json')
  assert sum(counts['labels'] for counts in table.values()) == 30
  assert any(counts['tokens cut off'] > 0 for counts in table.values()) == (longest < 200)
  for split in ('train', 'heldout'):
    opened = tokens.open(store, split)
    for index in range(len(opened)):
      row = opened.row(index, longest)
      assert (row['mask'].sum(1) > 0).all() and row['segments'].sum(1).max() <= longest


def test_a_changed_label_is_found(tmp_path):
  tokens, store = tokens_of(tmp_path, labels_of(20))
  check_noticed(store.find(tokens) / 'train.good.npy', lambda: tokens.open(store, 'train'))


def test_no_prompt_is_on_both_sides(shared):
  tokens, store = shared
  sides = [{to_text(label.prompt) for _, label in Single()(tokens.corpus, store.find(tokens.corpus), split, Counter())}
           for split in ('train', 'heldout')]
  assert all(sides) and not sides[0] & sides[1]


def test_settings_and_stages_that_suit_no_labels_are_refused(shared, tmp_path):
  tokens, _ = shared
  with pytest.raises(ConfigError, match='longest = 1'):
    replace(tokens, longest=1)
  with pytest.raises(ConfigError, match='Gopher') as caught:
    replace(tokens, corpus=Corpus(name='labels', sources=tokens.corpus.sources))
  assert caught.value.id == 'label.stages'
  with pytest.raises(DataError, match=r'label\.none'):
    tokens_of(tmp_path, labels_of(20), longest=3)
