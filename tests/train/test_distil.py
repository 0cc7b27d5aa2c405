"""Distillation: a student learns what its teacher foretells, the teacher nothing, and what cannot be taught is refused."""

import json
from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import divergence_reference as reference
from model import decoder
from model.errors import ConfigError
from model.layers import TakeLayers
from model.sharding import MeshShape, unbox
from tests.data.fake_corpus import made
from tests.data.noticed import check_noticed
from tests.model.variants import small
from tests.train.going_on import check_goes_on
from train.artifact import Store, decode, encode
from train.data.pack import Whole
from train.data.rows import Rows
from train.distil import JSD, TEACHER, Distil, Forward, Reverse, Stored
from train.edits import edited
from train.hints import Cosine, HiddenMap, Hints, Squared
from train.objectives import NextToken, shift
from train.optimizer import AdamW, Optimizer
from train.price import price
from train.run import Run, Saving, Watch
from train.step import accumulate, gradient
from train.stored_logits import Bucket, Renormalised, StoredLogits
from train.taught_rows import TaughtRows
from train.trained import load

VOCAB = 340
BIG, SMALL = small(vocab=VOCAB, layers=4, softcap=5.0), small(vocab=VOCAB, width=8, layers=1)


@cache
def params_of(config, seed=0, edits=()):
  def born(key):
    params = unbox(decoder.build(config).init(key))
    return edited(edits, jax.tree.map(lambda w: 3 * w if w.ndim > 1 else w, params), key)

  return jax.jit(born)(jax.random.key(seed))


@cache
def logits_of_rows(config):
  """A jitted function of (params, inputs_BL, segments_BL): logits, and the hidden states that they come from."""
  model = decoder.build(config)

  @jax.jit
  def read(params, inputs_BL, segments_BL):
    x_BLD = model.hidden(params, inputs_BL, segments_BL).x_BLD
    return model.logits(params, x_BLD), x_BLD

  return read


def batch_of(seed=0, masked=False):
  """Rows of ragged documents and padding, 4 of 9 tokens."""
  rng = np.random.default_rng(seed)
  segments = np.array([[1] * 9, [1] * 4 + [2] * 3 + [0] * 2, [1] * 2 + [0] * 7, [1] * 5 + [2] * 4], np.int32)
  batch = {'tokens': jnp.array(rng.integers(0, VOCAB, segments.shape), jnp.int32), 'segments': jnp.array(segments)}
  return batch | ({'mask': jnp.array(rng.integers(0, 2, segments.shape), jnp.float32)} if masked else {})


@pytest.fixture(scope='module')
def world(tmp_path_factory):
  """(a trained teacher, its store, its tokens)."""
  tokens, store = made(tmp_path_factory.mktemp('distil'))
  teacher = Run(name='teacher', model=BIG, rows=Rows(tokens, 24), batch=8, steps=4, optimizer=Optimizer(AdamW(lr=1e-2)),
                watch=Watch(heldout=0), saving=Saving(every=0))
  store.make(teacher)
  return teacher, store, tokens


def student(teacher, **fields) -> Run:
  return Run(**({'name': 'student', 'model': SMALL, 'rows': teacher.rows, 'batch': 8, 'steps': 4, 'objective': Distil(teacher),
                 'optimizer': Optimizer(AdamW(lr=1e-2)), 'watch': Watch(heldout=4, metrics=1),
                 'saving': Saving(every=2)} | fields))


def ready(world, **how):
  """(the jitted gradient, the student's parameters, frozen) of an objective taught by an untrained teacher."""
  teacher = world[0]
  edits = (HiddenMap(BIG.width),) if how.get('hidden') else ()
  grad_fn = jax.jit(gradient(Distil(teacher, **how)(decoder.build(SMALL))))
  return grad_fn, params_of(SMALL, 1, edits), {TEACHER: params_of(BIG)}


@pytest.mark.parametrize('masked', [False, True])
def test_the_loss_is_the_divergence_of_the_scored_tokens(world, masked):
  batch, row = batch_of(masked=masked), shift(batch_of(masked=masked))
  grad_fn, params, frozen = ready(world, divergence=JSD(0.3), temperature=2.0, hard=0.25)
  logits = [logits_of_rows(config)(tree, row.inputs_BL, row.segments_BL)[0] for config, tree in
            ((SMALL, params), (BIG, frozen[TEACHER]))]
  expected = reference.taught(*logits, row.targets_BL, row.weights_BL, 0.3, 2.0, 0.25)
  loss = grad_fn(params, frozen, batch, jax.random.key(0))[1]
  np.testing.assert_allclose(loss.objective.total, expected.loss, rtol=1e-4)
  assert float(loss.objective.weight) == float(row.weights_BL.sum())
  for name, value in (('divergence', expected.divergence), ('nll', expected.nll), ('agreement', expected.agree)):
    np.testing.assert_allclose(loss.metrics[name].total, value, rtol=2e-4)


def test_nothing_to_learn_from_oneself(world):
  teacher = replace(world[0], model=replace(SMALL, softcap=5.0))
  params = params_of(teacher.model)
  for divergence in (Forward(), JSD()):
    grad_fn = jax.jit(gradient(Distil(teacher, divergence)(decoder.build(teacher.model))))
    grads, loss = grad_fn(params, {TEACHER: params}, batch_of(), None)
    assert abs(float(loss.objective.total)) < 1e-5 and max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads)) < 1e-5


def test_all_hard_is_next_token_and_so_are_rows_that_nobody_teaches(world):
  params, batch, key = params_of(SMALL, 1), batch_of(), jax.random.key(0)
  plain = jax.jit(gradient(NextToken()(decoder.build(SMALL))))(params, {}, batch, key)
  hard = jax.jit(gradient(Distil(world[0], hard=1.0)(decoder.build(SMALL))))
  for frozen in ({TEACHER: params_of(BIG)}, {}):
    grads, loss = hard(params, frozen, batch, key)
    np.testing.assert_allclose(loss.objective.total, plain[1].objective.total, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), grads, plain[0])


def test_padding_and_other_documents_change_nothing(world):
  grad_fn, params, frozen = ready(world, hidden=Hints(0.5, Cosine()))
  batch = batch_of()
  noise = jnp.where(batch['segments'] == 0, 7, batch['tokens'])
  one, other = (grad_fn(params, frozen, batch | {'tokens': tokens}, jax.random.key(0)) for tokens in (batch['tokens'], noise))
  jax.tree.map(np.testing.assert_array_equal, one, other)
  assert float(jnp.abs(one[0]['hidden_map']['weight']).max()) > 0


def test_the_teacher_gets_no_gradient(world):
  loss_fn, params = Distil(world[0], hidden=Hints())(decoder.build(SMALL)), params_of(SMALL, 1, (HiddenMap(16),))
  frozen = {TEACHER: params_of(BIG)}
  total = jax.jit(jax.grad(lambda params, frozen: loss_fn(params, frozen, batch_of(), None).objective.total, (0, 1)))
  ours, theirs = total(params, frozen)
  assert all(float(jnp.abs(g).max()) > 0 for g in jax.tree.leaves(ours))
  assert all(float(jnp.abs(g).max()) == 0 for g in jax.tree.leaves(theirs))


@pytest.mark.parametrize('hidden', [None, Hints(2.0, Squared())])
def test_parts_add_up_to_the_whole(world, hidden):
  grad_fn, params, frozen = ready(world, hidden=hidden, divergence=Reverse(), hard=0.5)
  batch, key = batch_of(masked=True), jax.random.key(0)
  whole, parts = grad_fn(params, frozen, batch, key), jax.jit(accumulate(grad_fn, 2))(params, frozen, batch, key)
  np.testing.assert_allclose(parts[1].objective.total, whole[1].objective.total, rtol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), parts[0], whole[0])


def test_hints_are_the_distance_of_last_hidden_states(world):
  def turned(a, b):
    return 1 - (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))

  row = shift(batch_of())
  for hidden, far in ((Hints(2.0), lambda a, b: ((a - b)**2).mean(-1)), (Hints(0.5, Cosine()), turned)):
    grad_fn, params, frozen = ready(world, hidden=hidden)
    ours, theirs = (np.asarray(logits_of_rows(config)(tree, row.inputs_BL, row.segments_BL)[1], np.float64)
                    for config, tree in ((SMALL, params), (BIG, frozen[TEACHER])))
    expected = (np.asarray(row.weights_BL) * far(ours @ np.asarray(params['hidden_map']['weight'], np.float64), theirs)).sum()
    loss = grad_fn(params, frozen, batch_of(), jax.random.key(0))[1]
    assert float(loss.metrics['hint'].total) == pytest.approx(expected, rel=1e-4)
    whole = float(loss.metrics['divergence'].total) + hidden.weight * expected
    assert float(loss.objective.total) == pytest.approx(whole, rel=1e-4)


def test_a_run_learns_from_its_teacher_on_a_mesh_and_goes_on_after_a_cut(world, tmp_path):
  """The teacher lies on the run's mesh and in no checkpoint; the ledger would refuse a step that came out otherwise."""
  teacher, store, _ = world
  run = student(teacher, mesh=MeshShape(data=4, fsdp=2), watch=Watch(heldout=0, metrics=1))
  there = Store(tmp_path, (store.root,))
  folder = there.make(run)
  losses = [json.loads(line)['loss'] for line in (folder / 'metrics.jsonl').read_text().splitlines() if '"loss"' in line]
  assert losses[-1] < losses[0]
  check_goes_on(run, there)
  assert not any('teacher' in str(path) for path in (folder / 'checkpoints').rglob('*'))


def test_the_plan_counts_the_teacher(world):
  built = student(world[0]).build()
  bytes_ = sum(leaf.size * 4 for leaf in jax.tree.leaves(params_of(BIG)))
  assert sum(leaf.size * 4 for leaf in jax.tree.leaves(built.beside[TEACHER].params)) == bytes_
  said = price(built, 8, 24, 4)
  assert 'of the teacher' in said['memory per device'] and 'frozen' not in said['parameters']
  plain = price(replace(student(world[0]), objective=NextToken()).build(), 8, 24, 4)
  assert float(said['compute'].split()[0]) > float(plain['compute'].split()[0]) and 'teacher' not in plain['memory per device']


def test_a_student_out_of_its_teachers_layers(world, tmp_path):
  """With all of them it has nothing to learn; with some of them, and a map, it goes on from there."""
  teacher, store, _ = world
  there = Store(tmp_path, (store.root,))
  every, some = TakeLayers((0, 1, 2, 3)), TakeLayers.spread(2, 4)
  run = student(teacher, restore=teacher, edits=(every,), model=BIG, steps=1, watch=Watch(heldout=0, metrics=1))
  first = json.loads((there.make(run) / 'metrics.jsonl').read_text().splitlines()[0])
  assert first['divergence'] == pytest.approx(0, abs=1e-6) and first['agreement'] == 1
  run = student(teacher, restore=teacher, edits=(some, HiddenMap(16)), model=some.model(BIG), steps=1,
                objective=Distil(teacher, hidden=Hints()), watch=Watch(heldout=0))
  there.make(run)
  kept = load(run, there).params
  assert kept['layers']['mlp']['up']['weight'].shape[0] == 2 and kept['hidden_map']['weight'].shape == (16, 16)
  assert decode(json.loads(json.dumps(encode(run.objective.hidden)))) == run.objective.hidden


@pytest.mark.parametrize('change, id', [
  (lambda run, teacher: replace(run, objective=Distil(replace(teacher, rows=replace(teacher.rows, tokens=replace(
    teacher.rows.tokens, vocabulary=replace(teacher.rows.tokens.vocabulary, size=330)))))), 'distil.other-vocabulary'),
  (lambda run, teacher: replace(run, objective=Distil(replace(teacher, model=replace(BIG, causal=False)))), 'distil.encoder'),
  (lambda run, teacher: replace(run, model=replace(SMALL, causal=False)), 'distil.encoder'),
  (lambda run, teacher: replace(run, model=replace(SMALL, vocab=352)), 'distil.other-head'),
  (lambda run, teacher: replace(run, objective=Distil(teacher, hidden=Hints())), 'distil.hidden-map'),
  (lambda run, teacher: replace(run, restore=teacher, edits=(HiddenMap(16),)), 'distil.hidden-map'),
  (lambda run, teacher: replace(run, restore=teacher, edits=(HiddenMap(15),), objective=Distil(teacher, hidden=Hints())),
   'distil.hidden-map'),
  (lambda run, teacher: replace(run, objective=Distil(Stored())), 'distil.not-stored'),
  (lambda run, teacher: Distil(teacher, temperature=0.0), 'config.out-of-range'),
  (lambda run, teacher: Distil(teacher, hard=1.5), 'config.out-of-range'),
  (lambda run, teacher: JSD(1.0), 'config.out-of-range'),
  (lambda run, teacher: StoredLogits(name='l', by=teacher, tokens=teacher.rows.tokens, length=8, k=341), 'distil.too-many-ids'),
])
def test_what_cannot_be_taught_is_refused(change, id, world):
  with pytest.raises(ConfigError) as caught:
    change(student(world[0]), world[0])
  assert caught.value.id == id


def logits_of(world, **fields) -> StoredLogits:
  return StoredLogits(**({'name': 'logits', 'by': world[0], 'tokens': world[2], 'length': 24, 'k': 6, 'temperature': 2.0,
                          'kept': 'float32', 'batch': 4} | fields))


@pytest.mark.parametrize('rest', [Bucket(), Renormalised()])
def test_a_stored_teacher_says_what_the_teacher_says_of_the_same_rows(rest, world, tmp_path):
  """Documents longer than a row, and several in one, included; float16 rounds it a little."""
  teacher, store, tokens = world
  there, params = Store(tmp_path, (store.root,)), load(teacher, store).params
  part = Rows(tokens, 24, Whole()).visits(there).parts[0]
  for kept, near in (('float32', 1e-5), ('float16', 2e-3)):
    logits = logits_of(world, rest=rest, kept=kept)
    there.make(logits)
    split = logits.open(there)
    assert max(len(part.plan.spans(0, row)) for row in range(part.rows)) > 1 and max(np.diff(split.offsets)) > 25
    rows = [split.row(part.plan.spans(0, row), part.starts, 24) for row in range(part.rows)]
    batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    seen = jax.device_get(jax.jit(shift)(batch))
    theirs = np.asarray(logits_of_rows(BIG)(params, seen.inputs_BL, seen.segments_BL)[0]) / 2.0
    p = jax.jit(reference.buckets, static_argnums=2)(jax.nn.softmax(theirs, -1), batch['teacher_ids'][:, :-1],
                                                     isinstance(rest, Bucket))
    counts = seen.weights_BL > 0
    np.testing.assert_allclose(np.exp(batch['teacher_logps'][:, :-1][counts]), np.asarray(p)[counts], atol=near)


def test_all_ids_stored_teach_as_the_teacher_does(world, tmp_path):
  """Two runs, with the teacher beside one of them and all that it foretells beside the other, come out alike."""
  teacher, store, tokens = world
  there = Store(tmp_path, (store.root,))
  how = {'divergence': JSD(0.5), 'temperature': 2.0}
  live = student(teacher, rows=Rows(tokens, 24, Whole()), objective=Distil(teacher, **how), name='live')
  taught = student(teacher, rows=TaughtRows(logits_of(world, k=VOCAB)), objective=Distil(Stored(), **how), name='taught')
  for run in (live, taught):
    there.make(run)
  one, other = (load(run, there).params for run in (live, taught))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), one, other)
  heldout = [[json.loads(line)['heldout_loss'] for line in (there.folder(run) / 'metrics.jsonl').read_text().splitlines()
              if 'heldout_loss' in line] for run in (live, taught)]
  np.testing.assert_allclose(*heldout, rtol=1e-4)


def test_stored_logits_that_changed_or_do_not_suit_are_refused(world, tmp_path):
  teacher, store, _ = world
  there, logits = Store(tmp_path, (store.root,)), logits_of(world)
  rows = TaughtRows(logits)
  taught = Distil(Stored(), temperature=2.0)
  for change, id in (({'objective': Distil(Stored())}, 'distil.temperature'),
                     ({'objective': replace(taught, hidden=Hints())}, 'distil.no-hidden'),
                     ({'objective': taught, 'model': replace(SMALL, vocab=352)}, 'distil.other-head')):
    with pytest.raises(ConfigError) as caught:
      student(teacher, rows=rows, **change)
    assert caught.value.id == id
  path = there.make(logits) / 'train.teacher_logps.npy'
  check_noticed(path, lambda: logits.open(there))
