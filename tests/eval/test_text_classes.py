"""From labelled lines to figures: a run learns to tell texts, or words, apart, and is measured on those that it never saw."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest

from experiments.export import classes
from model.classifier import Classifier
from model.errors import ConfigError
from tests.model.variants import ENCODERS, small
from train.artifact import Store, decode, digest, encode, read_json
from train.classification import Classification
from train.data.class_rows import ClassRows
from train.data.corpus import Corpus
from train.data.labelled import LabelledTokens
from train.data.labelling import WordLines, Words
from train.data.masking import Masking
from train.data.readers import JsonLines
from train.data.rows import Rows
from train.data.tokens import Tokens
from train.data.vocabulary import Vocabulary
from train.eval.evaluation import FILE, Evaluation
from train.eval.text_classes import TextClassification
from train.objectives import MaskedLM
from train.optimizer import AdamW, Optimizer
from train.run import Run, Saving, Watch
from train.trained import load

FILLING = ('the state of the union', 'we the people', 'a more perfect day', 'fellow citizens', 'of these states')
CLASSES = ('cat', 'dog')
ENCODER = replace(ENCODERS['bert'], vocab=340, layers=1, positions=replace(ENCODERS['bert'].positions, length=64))


def lines(count: int) -> list[dict]:
  """A text is of the class of the animal that it names, once, somewhere among other words."""
  random = np.random.default_rng(0)
  records = []
  for number in range(count):
    words = ' '.join(FILLING[i] for i in random.integers(0, 5, 3)).split()
    words.insert(random.integers(len(words)), label := CLASSES[number % 2])
    records.append({'text': ' '.join(words), 'label': label, 'words': words,
                    'labels': [word if word in CLASSES else 'other' for word in words]})
  return records


@pytest.fixture(scope='module')
def parent(tmp_path_factory):
  """An encoder of one layer after one step, and the store that it lies in."""
  folder = tmp_path_factory.mktemp('classes')
  (folder / 'texts.jsonl').write_text('\n'.join(map(json.dumps, lines(240))))
  corpus = Corpus(name='texts', sources=(JsonLines(f'{folder}/texts.jsonl', meta=('label',)),), stages=(), heldout_modulo=4)
  tokens = Tokens(name='tokens', corpus=corpus, vocabulary=Vocabulary(name='vocabulary', corpus=corpus, size=340))
  run = Run(name='parent', model=ENCODER, rows=Rows(tokens, 32, masking=Masking()), objective=MaskedLM(), batch=8, steps=1,
            watch=Watch(heldout=0), saving=Saving(every=0))
  store = Store(folder / 'runs')
  store.make(run)
  return run, store


def told_apart(parent: Run, rows: ClassRows, **changes) -> Run:
  fields = {'edits': (Classifier(len(rows.tokens.classes), 'mean'),), 'steps': 60} | changes
  return Run(name='told', model=parent.model, restore=parent, rows=rows, objective=Classification(), batch=8,
             optimizer=Optimizer(AdamW(lr=1e-2)), watch=Watch(heldout=30, heldout_rows=1000), saving=Saving(every=0), **fields)


def texts_of(parent: Run) -> ClassRows:
  return ClassRows(LabelledTokens(name='labelled', corpus=parent.rows.tokens.corpus, vocabulary=parent.vocabulary,
                                  classes=CLASSES, longest=48), length=48)


@pytest.fixture(scope='module')
def measured(parent):
  """An evaluation of a run that learnt texts, and what its file says."""
  run = told_apart(parent[0], texts_of(parent[0]))
  evaluation = Evaluation(name='told-apart', run=run, tasks=(TextClassification(name='texts', rows=run.rows, batch=3),))
  return evaluation, read_json(parent[1].make(evaluation) / FILE)['tasks'][0]


def test_what_a_text_names_is_learnt_and_measured_on_others(parent, measured):
  evaluation, found = measured
  split = evaluation.run.rows.tokens.open(parent[1], 'heldout')
  count = len(split.offsets) - 1
  figures = {figure['name']: figure['value'] for figure in found['figures']}
  assert figures['weighted_f1'] > 0.95 and found['items'] == count > 40 and found['labels'] == list(CLASSES)
  assert np.sum(found['confusion']) == count and sum(row['support'] for row in found['per_class']) == count
  documents = list(evaluation.run.rows.tokens.corpus.documents(parent[1].find(evaluation.run.rows.tokens.corpus), 'heldout'))
  assert found['ids'] == [each.id for each in documents]
  assert [CLASSES[number] for number in found['columns']['truth']] == [each.meta['label'] for each in documents]


def test_the_run_wrote_down_the_same_while_it_learnt(parent, measured):
  evaluation, found = measured
  lines = [json.loads(line) for line in (parent[1].find(evaluation.run) / 'metrics.jsonl').read_text().splitlines()]
  held = [line for line in lines if 'heldout_weighted_f1' in line]
  figures = {figure['name']: figure['value'] for figure in found['figures']}
  assert [line['step'] for line in held] == [30, 60]
  for name in ('weighted_f1', 'macro_f1', 'accuracy', 'loss'):
    assert held[-1][f'heldout_{name}'] == pytest.approx(figures[name], abs=1e-5)


def test_words_are_told_apart_too(parent, tmp_path):
  run, store = parent
  (tmp_path / 'words.jsonl').write_text('\n'.join(json.dumps(record) for record in lines(240)))
  corpus = Corpus(name='words', sources=(WordLines(f'{tmp_path}/words.jsonl'),), stages=(), heldout_modulo=4)
  tokens = LabelledTokens(name='labelled-words', corpus=corpus, vocabulary=run.vocabulary, classes=('other', *CLASSES),
                          labelling=Words(), longest=48)
  rows = ClassRows(tokens, length=64)
  told = told_apart(run, rows, edits=(Classifier(3),))
  evaluation = Evaluation(name='words-told', run=told, tasks=(TextClassification(name='words', rows=rows),))
  found = read_json(Store(tmp_path / 'runs', (store.root,)).make(evaluation) / FILE)['tasks'][0]
  figures = {figure['name']: figure['value'] for figure in found['figures']}
  truth = np.array(found['columns']['truth'])
  assert figures['macro_f1'] > 0.95 and len(found['ids']) == len(set(found['ids'])) == len(truth)
  assert classes(load(told, Store(tmp_path / 'runs', (store.root,)))) == ('other', *CLASSES)
  assert (truth == 0).sum() > 5 * (truth > 0).sum() > 0


def test_mistakes_are_shown_those_first_that_it_was_surest_of(parent, measured):
  evaluation, _ = measured
  trained = load(evaluation.run, parent[1])
  assert classes(trained) == ()              # transformers has no head on the mean of a text
  head = jax.tree.map(jax.numpy.negative, trained.params['classifier'])
  turned = trained._replace(params=trained.params | {'classifier': head})
  taken = replace(evaluation.tasks[0], shown=5).take(turned, parent[1])
  assert len(taken.shown) == 5 and all(each['wanted'] in each['question'] != each['answer'] for each in taken.shown)
  wrong = taken.columns['nll'][taken.columns['truth'] != taken.columns['said']]
  assert len(wrong) > 40 and wrong.max() == taken.columns['nll'].max()


@pytest.mark.parametrize(('changes', 'id'), [
  ({'edits': (Classifier(3, 'mean'),)}, 'classes.number'), ({'edits': ()}, 'config.classifier'),
  ({'edits': (Classifier(2, 'mean'), Classifier(2, 'mean'))}, 'edit.twice')])
def test_runs_that_are_refused(parent, changes, id):
  with pytest.raises(ConfigError) as caught:
    told_apart(parent[0], texts_of(parent[0]), **changes).build()
  assert caught.value.id == id


def test_a_causal_model_is_not_read_at_the_first_token_of_a_text(parent):
  rows = texts_of(parent[0])
  causal = Run(name='causal', model=small(vocab=340, layers=1), rows=Rows(parent[0].rows.tokens, 32), batch=8, steps=1)
  with pytest.raises(ConfigError, match='sees none of those after it'):
    told_apart(causal, rows, edits=(Classifier(2),))
  assert told_apart(causal, rows).rows == rows
  with pytest.raises(ConfigError, match='would be of one class'):
    told_apart(causal, replace(rows, tokens=replace(rows.tokens, labelling=Words())))


def test_a_task_for_a_model_without_a_head_is_refused(parent, measured):
  evaluation, _ = measured
  with pytest.raises(ConfigError, match=r'config\.classifier'):
    replace(evaluation, run=parent[0])
  assert decode(json.loads(json.dumps(encode(evaluation)))) == evaluation
  assert digest(replace(evaluation.tasks[0], shown=1)) == digest(evaluation.tasks[0])
