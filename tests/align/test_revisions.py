"""Sample, critique, revise; and two answers judged: what is kept, what is written down of it, and that it can be done again."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from align.ai_preferences import AiPreferences
from align.constitution import Ballot
from align.conversations import from_text
from align.generated import FromGenerated
from align.journal import read
from align.pair_tokens import PairTokens
from align.preferences import pair_in
from align.questions import FromTask
from align.revisions import Revisions
from align.sft import ChatTokens
from align.tasks import Sums
from model.chat import Message, Plain
from model.errors import ConfigError, DataError
from tests.align.judges import PRINCIPLES, Scripted
from train.artifact import Store, digest
from train.data.corpus import Corpus
from train.data.document import SPLITS
from train.data.vocabulary import Vocabulary

BALLOT = Ballot('{talk}|{first}|{second}|{prefer}')


def revisions(**changes) -> Revisions:
  return Revisions(**{'name': 'revised', 'questions': FromTask(Sums()), 'principles': PRINCIPLES, 'writer': Scripted(),
                      'critic': Scripted(), 'count': 40, 'draws': 2, 'lot': 7} | changes)


def preferences(**changes) -> AiPreferences:
  return AiPreferences(**{'name': 'judged', 'questions': FromTask(Sums()), 'principles': PRINCIPLES, 'ballot': BALLOT,
                          'writers': (Scripted(), Scripted()), 'judge': Scripted(bias=3.0), 'count': 40, 'lot': 7} | changes)


def steps(artifact, store, file):
  return list(read(store.make(artifact) / file))


def test_every_step_is_written_down_with_its_principle(tmp_path):
  records = steps(revisions(), Store(tmp_path), 'steps.jsonl')
  assert [record['number'] for record in records] == list(range(40))
  questions = FromTask(Sums()).open(Store(tmp_path), 'train')
  for record in records:
    assert record['question'] == [message._asdict() for message in questions(record['number']).messages]
    first, second = record['draws']
    assert first['principle'] != second['principle']                       # none twice before each was drawn
    if record['answer'] != '0':
      assert first['revision'] == f'{record["answer"]} {first["principle"]}'
      assert second['revision'] == f'{first["revision"]} {second["principle"]}' == record['final']
  assert len({draw['critique'] for record in records for draw in record['draws']}) > 50
  drawn = Counter(draw['principle'] for record in records for draw in record['draws'])
  assert set(drawn) == {'calm', 'kind', 'private'} and min(drawn.values()) > 15
  longer = steps(revisions(name='longer', draws=4), Store(tmp_path), 'steps.jsonl')
  assert all(sorted(Counter(draw['principle'] for draw in record['draws']).values()) == [1, 1, 2] for record in longer)


def test_what_is_learnt_is_the_last_revision_and_never_a_critique(tmp_path):
  store = Store(tmp_path)
  corpus = Corpus(name='talks', sources=(FromGenerated(revisions()),), stages=(), heldout_modulo=5)
  folder = store.make(corpus)
  records = [record for record in steps(revisions(), store, 'steps.jsonl') if record['outcome'] == 'revised']
  talks = {from_text(document.text, '') for split in SPLITS for document in corpus.documents(folder, split)}
  assert talks == {(Message('user', record['question'][0]['content']), Message('assistant', record['final']))
                   for record in records}
  vocabulary = Vocabulary(name='bpe', corpus=corpus, size=320)
  tokens = ChatTokens(name='tokens', corpus=corpus, vocabulary=vocabulary, template=Plain(), longest=65)
  store.make(tokens)
  opened, tokenizer = tokens.open(store, 'train'), vocabulary.load(store)
  learnt = tokenizer.decode(opened.ids[:][np.asarray(opened.mask) > 0].tolist())
  assert 'calm' in learnt and 'leak' not in tokenizer.decode(opened.ids[:].tolist())
  assert 'leak' in json.dumps(records)


def test_answers_that_came_out_as_they_were_are_left_out_and_counted(tmp_path):
  store = Store(tmp_path)
  folder = store.make(revisions())
  records = list(read(folder / 'steps.jsonl'))
  same = [record for record in records if record['answer'] == '0']
  assert same and all(record['outcome'] == 'left out: as it was at first' for record in same)
  table = json.loads((folder / 'table.json').read_text())
  assert table['outcomes'] == {'questions': 40, 'left out: as it was at first': len(same), 'revised': 40 - len(same)}
  assert sum(each['drawn'] for each in table['principles'].values()) == 80
  assert sum(each['changed'] for each in table['principles'].values()) == 2 * (40 - len(same))
  assert len((folder / 'talks.jsonl').read_text().splitlines()) == 40 - len(same)
  with pytest.raises(DataError, match=r'revision\.none'):
    store.make(revisions(name='lazy', critic=Scripted(lazy=True)))


def test_a_revision_that_the_limit_ended_is_left_out(tmp_path):
  long = tuple(replace(each, revise=f'Be {each.id} at long last.') for each in PRINCIPLES)
  with pytest.raises(DataError, match='cut off by the limit'):
    Store(tmp_path).make(revisions(principles=long))


@pytest.mark.parametrize('make, part', [(revisions, 'steps.jsonl'), (preferences, 'judged.jsonl')])
def test_made_again_or_gone_on_with_it_is_the_same_bytes(tmp_path, make, part):
  files = {}
  for name, lot in (('one', 7), ('two', 40)):
    folder = Store(tmp_path / name).make(make(lot=lot))
    files[name] = {path.name: path.read_bytes() for path in folder.glob('*.jsonl') if path.name != 'lives.jsonl'}
  field = 'writer' if make is revisions else 'writers'
  cut = make()
  failing = Scripted(fails=6)
  cut = replace(cut, **{field: failing if field == 'writer' else (failing, failing)})
  assert digest(cut) == digest(make())
  store = Store(tmp_path / 'three')
  with pytest.raises(KeyboardInterrupt):
    store.make(cut)
  torn = store.place(cut) / f'{part}.part'
  done = torn.read_bytes().count(b'\n')
  assert 0 < done < 40 and f'{done} of 40' in make().remains(store.place(cut))
  torn.write_bytes(torn.read_bytes() + b'{"number": 99, "tor')
  folder = store.make(make())
  files['three'] = {path.name: path.read_bytes() for path in folder.glob('*.jsonl') if path.name != 'lives.jsonl'}
  assert files['one'] == files['two'] == files['three'] and len(files['one']) == 2


def test_labels_come_from_every_principle_in_both_orders_and_no_bias_is_left(tmp_path):
  store = Store(tmp_path)
  fair, biased = (steps(preferences(name=name, judge=Scripted(bias=bias)), store, 'judged.jsonl')
                  for name, bias in (('fair', 0.0), ('biased', 5.0)))
  judged = [(one, two) for one, two in zip(fair, biased) if one['outcome'] == 'judged']
  for one, two in judged:
    assert [(each['principle'], each['shown']) for each in one['judged']] == [
      (name, order) for name in ('calm', 'kind', 'private') for order in ('first, second', 'second, first')]
    assert one['judged'] != two['judged'] and one['label'] == pytest.approx(two['label'], abs=1e-6)
    assert (one['label'] > 0.5) == (float(one['answers'][0]) > float(one['answers'][1]))
  assert len({record['label'] for record, _ in judged}) > 2


def test_answers_that_are_alike_are_no_pair(tmp_path):
  folder = Store(tmp_path).make(preferences())
  records = list(read(folder / 'judged.jsonl'))
  alike = [record for record in records if record['answers'][0] == record['answers'][1]]
  assert alike and all(record['outcome'] == 'left out: alike' and 'label' not in record for record in alike)
  table = json.loads((folder / 'table.json').read_text())['outcomes']
  assert table == {'questions': 40, 'judged': 40 - len(alike), 'left out: alike': len(alike)}
  with pytest.raises(DataError, match=r'pair.none.*\n.*alike.: 40'):
    Store(tmp_path).make(preferences(name='one', writers=(Scripted(answers=1),) * 2))


def test_a_pair_that_the_judge_cannot_read_is_left_out(tmp_path):
  records = steps(preferences(judge=Scripted(patience=3.0)), Store(tmp_path), 'judged.jsonl')
  assert {record['outcome'] == 'left out: too long for the judge' for record in records
          if sorted(record['answers']) == ['1', '2']} == {True}
  assert any(record['outcome'] == 'judged' for record in records)


def test_pairs_reach_a_reward_model_with_soft_labels_the_likelier_side_first(tmp_path):
  store = Store(tmp_path)
  corpus = Corpus(name='pairs', sources=(FromGenerated(preferences()),), stages=(), heldout_modulo=5)
  folder = store.make(corpus)
  made = [pair_in(json.loads(document.text), document.id) for split in SPLITS for document in corpus.documents(folder, split)]
  for pair in made:
    assert 0.5 <= pair.label < 1.0 and float(pair.chosen[0].content) > float(pair.rejected[0].content)
  tokens = PairTokens(name='tokens', corpus=corpus, vocabulary=Vocabulary(name='bpe', corpus=corpus, size=320),
                      template=Plain(), longest=64)
  store.make(tokens)
  labels = [float(tokens.open(store, split).row(index, 64)['label']) for split in SPLITS
            for index in range(len(tokens.open(store, split)))]
  assert sorted(labels) == pytest.approx(sorted(pair.label for pair in made))


def test_a_clamp_holds_labels_and_is_none_unless_asked_for(tmp_path):
  free, held = (steps(preferences(name=name, clamp=clamp), Store(tmp_path), 'judged.jsonl')
                for name, clamp in (('free', None), ('held', (0.4, 0.6))))
  labels = [record['label'] for record in free if record['outcome'] == 'judged']
  assert max(labels) > 0.6 and min(labels) < 0.4
  assert [record['label'] for record in held if record['outcome'] == 'judged'] == list(np.clip(labels, 0.4, 0.6))


def test_the_text_of_a_principle_changes_what_a_thing_is():
  other = (replace(PRINCIPLES[0], revise='Be calmer.'), *PRINCIPLES[1:])
  for make in (revisions, preferences):
    assert digest(make()) != digest(make(principles=other)) and digest(make()) == digest(make(lot=3))


@pytest.mark.parametrize('make, wrong', [
  (revisions, {'principles': ()}), (revisions, {'principles': PRINCIPLES[:1] * 2}), (revisions, {'draws': 0}),
  (preferences, {'count': 0}), (preferences, {'clamp': (0.6, 0.9)}), (preferences, {'principles': ()}),
])
def test_settings_that_mean_nothing_are_refused(make, wrong):
  with pytest.raises(ConfigError):
    make(**wrong)
