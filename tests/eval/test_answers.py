"""Answers and summaries: what is the same, what is alike, and what a real model is asked and says."""

import json
import zipfile
from dataclasses import dataclass, replace

import jax
import numpy as np
import pytest

from experiments.smollm2.chat import get_config as smollm2
from experiments.smollm2.lora_tiny import get_config as lora_tiny
from model.chat import ChatML, Message, Plain
from model.config import Attention, Decoder, Gated
from model.decoder import build
from model.errors import ConfigError, DataError
from model.sharding import unbox
from tests.model.chats import FAMILY, tokenizer_of
from train.artifact import Store
from train.data import fetch
from train.data.corpus import Corpus
from train.data.files import sha256_of
from train.data.readers import JsonLines
from train.eval.answers import Answers, Marker, contains, exact, normalised, token_f1
from train.eval.foretelling import Foretelling
from train.eval.replying import Replied, Replying, template_for
from train.eval.sets import Exchanges, Samples, TfdsPaired
from train.eval.summaries import Summarisation, first, rouge
from train.eval.task import FIGURES
from train.trained import Trained

MODEL = Decoder(vocab=368, width=16, layers=1, attention=Attention(2, 1, 8), mlp=Gated(32), tied=True)
ASKED = [('What is red?', 'The rose.\nBlood'), ('Who answers?', 'a model'), ('Is it so?', 'No'),
         ('How long is it? ' * 30, 'Long')]


@dataclass(frozen=True)
class Somebody:
  """A run, as far as tasks look at it."""

  model: Decoder = MODEL
  name: str = 'somebody'
  restore: None = None


@pytest.fixture(scope='module')
def trained():
  model = build(MODEL)
  return Trained(Somebody(), model, jax.jit(lambda key: unbox(model.init(key)))(jax.random.key(0)),
                 tokenizer_of(*FAMILY[ChatML]), 0)


@pytest.fixture
def store(tmp_path):
  return Store(tmp_path / 'runs')


@pytest.fixture
def corpus(tmp_path, store):
  lines = [json.dumps({'text': asked, 'wanted': wanted, 'summary': wanted}) for asked, wanted in ASKED]
  (tmp_path / 'asked.jsonl').write_text('\n'.join(lines))
  made = Corpus(name='asked', sources=(JsonLines(str(tmp_path / '*.jsonl'), meta=('wanted', 'summary')),), stages=(),
                heldout_modulo=2)
  store.make(made)
  return made


@dataclass(frozen=True)
class Scripted(Replying):
  """Says what stands here, in order of the questions' texts."""

  says: tuple[str, ...] = ()

  def __call__(self, trained, template, talks):
    order = sorted(range(len(talks)), key=lambda place: talks[place][-1].content)
    found = {place: Replied(text, True) if text else None for place, text in zip(order, self.says)}
    return [found[place] for place in range(len(talks))]


@dataclass(frozen=True)
class Lengths(Marker):

  def open(self, store):
    return lambda talks, said, wanted: np.array([len(talk) + len(right) / 100 for talk, right in zip(talks, wanted)])


def test_squad_s_normalisation_and_its_figures():
  assert normalised(' The  Eiffel-Tower, an "A"! ') == 'eiffeltower'
  assert exact('the rose', 'Rose.') == 1 and exact('a rose is red', 'rose') == 0 and exact('theory', 'ory') == 0
  assert token_f1('a red rose', 'the red blood') == 0.5 and token_f1('rose rose', 'rose') == pytest.approx(2 / 3)
  assert contains('It was a red rose, once.', 'Red Rose') == 1 and contains('roses', 'rose') == 0 == contains('a', 'the')
  assert token_f1('', 'the') == 1 and token_f1('', 'rose') == 0


def test_rouge_of_known_pairs():
  score = rouge()
  assert score('the cat sat', 'the cat sat') == {'rouge_1': 1.0, 'rouge_2': 1.0, 'rouge_l': 1.0}
  assert score('dogs bark', 'the cat sat') == {'rouge_1': 0.0, 'rouge_2': 0.0, 'rouge_l': 0.0}
  found = score('police kill the gunman', 'police killed the gunman today')       # words are stemmed
  assert found['rouge_1'] == pytest.approx(8 / 9) and found['rouge_2'] == pytest.approx(6 / 7)
  found = score('the gunman kill police', 'police killed the gunman')              # Lin 2004, section 3.1: his S3
  assert (found['rouge_1'], found['rouge_l']) == (1.0, 0.5)
  assert first('It is 3.5 m. Is it? Yes! No.', 2) == 'It is 3.5 m. Is it?' and first('One', 3) == 'One'


def test_answers_are_matched_with_the_best_of_what_is_wanted(corpus, store, trained):
  said = Scripted(says=('', 'yes', 'Blood!', 'The model'))          # How, Is, What, Who
  task = Answers(name='t', questions=corpus, splits=('train', 'heldout'), replying=said, template=Plain(), marker=Lengths())
  taken = task.take(trained, store)
  exacts = dict(zip((item['question'][:3] for item in taken.shown), taken.columns['exact']))
  assert exacts == {'How': 0, 'Is ': 0, 'Wha': 1, 'Who': 1}
  assert FIGURES['exact_match'](taken.columns) == 0.5 and sorted(taken.ids)[0].startswith('jsonl:')
  assert sorted(taken.columns['ended']) == [0, 1, 1, 1] and min(taken.columns['judged']) == pytest.approx(2.02)
  assert {item['wanted'] for item in taken.shown} >= {'The rose. / Blood'}
  shown = Answers(name='t', questions=corpus, system='Be brief.', examples=(('One?', '1'),)).talk('Two?')
  assert [message.role[0] + message.content for message in shown] == ['sBe brief.', 'uOne?', 'a1', 'uTwo?']


def test_summaries_stand_beside_the_beginning_of_the_text(corpus, store, trained):
  task = Summarisation(name='t', texts=corpus, splits=('train', 'heldout'), lead=1, template=Plain(),
                       replying=Scripted(says=('Long', 'No', 'Rose', '')))
  taken = task.take(trained, store)
  assert FIGURES['rouge_l'](taken.columns) == pytest.approx((1 + 1 + 2 / 4 + 0) / 4)       # 'Rose' against 'The rose.\nBlood'
  assert FIGURES['lead_rouge_l'](taken.columns) == pytest.approx(np.mean([rouge()(first(asked, 1), wanted)['rouge_l']
                                                                          for asked, wanted in ASKED]))


def test_items_are_chosen_by_their_text_and_some_must_be_there(corpus, store, trained):
  def asked(items: int) -> dict[str, str]:
    task = Answers(name='t', questions=corpus, splits=('train', 'heldout'), items=items, longest=100, template=Plain(),
                   replying=Scripted(says=('a', 'b', 'c')[:items]))
    taken = task.take(trained, store)
    return dict(zip(taken.ids, (item['question'] for item in taken.shown)))

  known = {question for question, _ in ASKED if len(question) <= 100}
  assert set(asked(3).values()) == known and [len(asked(items)) for items in (1, 2, 3)] == [1, 2, 3]
  assert asked(1).items() < asked(2).items() < asked(3).items()
  task = Answers(name='t', questions=corpus, splits=('train',), longest=2, template=Plain())
  with pytest.raises(DataError, match='2 bytes or fewer, and says'):
    task.take(trained, store)


def test_lots_change_no_answer_and_long_questions_get_none(trained):
  talks = [(Message('user', 'the user asks ' * count),) for count in (1, 7, 2, 5, 3, 40)]
  whole = Replying(tokens=6, prompt_tokens=64, rows=4)(trained, ChatML(), talks)
  assert whole[-1] is None and None not in whole[:-1]
  assert whole == Replying(tokens=6, prompt_tokens=64, rows=1)(trained, ChatML(), talks)
  with pytest.raises(DataError, match='none has a prompt of 8 tokens'):
    Replying(prompt_tokens=8)(trained, ChatML(), talks[1:2])
  with pytest.raises(DataError, match='no control token'):
    Replying()(trained._replace(tokenizer=tokenizer_of()), ChatML(), talks)


def test_documents_are_foretold_one_by_one(corpus, store, trained):
  taken = Foretelling(name='t', corpus=corpus, splits=('train', 'heldout'), length=32).take(trained, store)
  assert sum(taken.columns['bytes']) == sum(len(asked) for asked, _ in ASKED)
  one = Foretelling(name='t', corpus=corpus, splits=('train', 'heldout'), length=32, items=1).take(trained, store)
  place = taken.ids.index(one.ids[0])
  assert one.columns['nll'][0] == pytest.approx(taken.columns['nll'][place], rel=1e-3)      # bfloat16
  assert FIGURES['loss'](taken.columns) == pytest.approx(sum(taken.columns['nll']) / sum(taken.columns['tokens']))


def test_a_run_that_says_no_template_is_not_asked_in_a_wrong_one(corpus):
  with pytest.raises(ConfigError, match='in which template'):
    Answers(name='t', questions=corpus).check(Somebody())
  assert template_for(Plain(), Somebody(), 't') == Plain()
  assert template_for(None, lora_tiny(), 't') == smollm2().template is not None       # that of the model it comes from
  assert template_for(None, replace(smollm2(), template=None), 't') == Plain()
  reads_both = Somebody(model=Decoder(**{**MODEL.__dict__, 'causal': False}))
  for task in (Foretelling(name='t', corpus=corpus), Summarisation(name='t', texts=corpus, template=Plain())):
    with pytest.raises(ConfigError, match='both sides'):
      task.check(reads_both)


def packed(tmp_path, monkeypatch, member: str, text: str) -> fetch.Wheel:
  """A wheel in the cache that holds this file."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  path = fetch.cache() / 'some-1-py3-none-any.whl'
  path.parent.mkdir(parents=True)
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr(member, text)
  return fetch.Wheel('some', '1', sha256_of(path))


def test_exchanges_of_a_wheel(tmp_path, monkeypatch):
  text = 'categories:\n- trivia\nconversations:\n- - Who?\n  - \'1963\'\n- - Who?\n  - Me\n- alone\n- - Why\n    so?\n  - No\n'
  found = list(Exchanges(packed(tmp_path, monkeypatch, 'a.yml', text), 'a.yml').read())
  assert [(each.text, each.meta['wanted']) for each in found] == [('Who?', '1963\nMe'), ('Why so?', 'No')]


def test_samples_of_a_wheel(tmp_path, monkeypatch):
  talk = [{'role': 'system', 'content': 's'}, {'role': 'user', 'content': 'u'}]
  lines = [{'input': talk, 'ideal': ['a', 'b']}, {'input': []}]
  reader = Samples(packed(tmp_path, monkeypatch, 'a.jsonl', '\n'.join(map(json.dumps, lines))), 'a.jsonl', tolerate=1)
  assert [(each.text, each.meta) for each in reader.read()] == [('u', {'wanted': 'a\nb'})]
  with pytest.raises(DataError, match=r'a\.jsonl:2'):
    list(Samples(reader.wheel, 'a.jsonl').read())


def test_examples_of_tfds_bring_their_summaries(tmp_path):
  from train.data.document import Document
  from train.data.tfds_builder import write
  write(tmp_path, {'train': lambda: iter([Document('long text', 'short', 'd1', {})])})
  found = list(TfdsPaired('athanor_text', data_dir=str(tmp_path), field='text', other='source').read())
  assert [(each.text, each.meta) for each in found] == [('long text', {'summary': 'short'})]
  with pytest.raises(DataError, match='highlights'):
    list(TfdsPaired('athanor_text', data_dir=str(tmp_path), field='text').read())
