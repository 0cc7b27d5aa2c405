"""Freezes: what is held has no gradient, no moments and no place in a checkpoint, and learns again in the next run."""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from align.reward import Score
from model.adapt import LoRA, Merge
from model.config import Attention as Heads
from model.config import Compute, Decoder, LayerNorm, Learned, Plain, Typed
from model.decoder import build as functions
from model.errors import ConfigError
from model.freeze import Freeze, FreezeLowest
from model.lowrank import LowRank
from model.new_tokens import NewTokens
from model.quantize import Quantize
from model.sharding import MeshShape, unbox
from model.sizes import llama
from tests.train.runs import checkpoint, same, tiny_run
from train.artifact import Store
from train.build import build, compiled, start
from train.edits import Below, edited, join, split
from train.objectives import NextToken
from train.optimizer import AdamW, Muon, Optimizer
from train.run import Saving
from train.trained import foundation, load
from train.types import Loss, Mean, Objective

KEY = jax.random.key(0)
CONFIG = llama(40, 16, 3, 2)


@dataclass(frozen=True)
class Far(Objective):
  """Squares of what a Score head says of rows."""

  def __call__(self, model):
    def loss(params, frozen, batch, key):
      x_BLD = model.hidden(params, batch['tokens'], batch['segments']).x_BLD
      said_B = x_BLD[:, 0] @ params['score']['vector']
      return Loss(Mean((jnp.square(said_B - 1.0)).sum(), jnp.float32(len(said_B))), {})

    return loss


@pytest.fixture(scope='module')
def lineage(tmp_path_factory):
  """A trained run of three layers and the store that holds it."""
  folder = tmp_path_factory.mktemp('freeze')
  parent = tiny_run(folder)
  parent = replace(parent, model=replace(parent.model, layers=3), optimizer=Optimizer(AdamW(1e-2, weight_decay=0.5)))
  store = Store(folder / 'runs')
  store.make(parent)
  return parent, store


def child(parent, **fields):
  return replace(parent, restore=parent, **(dict(name='child', steps=4, saving=Saving(every=2)) | fields))


@pytest.mark.parametrize(('rule', 'mesh'), [
  (AdamW(1e-2, weight_decay=0.5), MeshShape(data=4, fsdp=2)), (Muon(1e-2), MeshShape())], ids=['adamw', 'muon'])
def test_the_lowest_layers_are_held_to_the_bit_and_the_others_learn(lineage, rule, mesh):
  parent, store = lineage
  value = child(parent, name=f'top-{type(rule).__name__}-{mesh.fsdp}', edits=(FreezeLowest(2),), optimizer=Optimizer(rule),
                mesh=mesh)
  store.make(value)
  before, after = load(parent, store).params, load(value, store).params
  same(after['embedding'], before['embedding'])
  for old, new in zip(jax.tree.leaves(before['layers']), jax.tree.leaves(after['layers'])):
    np.testing.assert_array_equal(new[:2], old[:2])
    assert (np.asarray(new[2]) != np.asarray(old[2])).any()
  assert (np.asarray(after['norm']['scale']) != np.asarray(before['norm']['scale'])).any()
  names = checkpoint(store, value)
  assert not any('embedding' in name for name in names) and any(name.startswith('params.layers') for name in names)
  built = value.build()
  assert {leaf.shape[0] for leaf in jax.tree.leaves(built.abstract.params['layers'])} == {1}
  learned = sum(leaf.size for leaf in jax.tree.leaves(built.abstract.params))
  assert sum(leaf.size for leaf in jax.tree.leaves(built.abstract.opt_state)) < 2 * learned + 20


def test_a_freeze_ends_with_its_run(lineage):
  parent, store = lineage
  held = child(parent, name='held', edits=(Freeze(('layers', 'embedding')),), steps=1)
  store.make(held)
  free = child(held, name='free', edits=(), steps=1)
  assert free.lineage_of_edits == () and held.lineage_of_edits == held.edits
  store.make(free)
  before, between, after = (load(each, store).params for each in (parent, held, free))
  same(between['layers'], before['layers'])
  assert all((np.asarray(a) != np.asarray(b)).any() for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(between)))


def learns(edits, config=None, base=()):
  """The parts of State.params by name, the rest of the tree being whole after `join`."""
  config = config or CONFIG
  params = edited((*base, *edits), unbox(functions(config).init(KEY)), KEY)
  learned, frozen = split(params, (*base, *edits))
  same(join(learned, frozen), params)
  return learned


def shapes(tree):
  return {jax.tree_util.keystr(path, simple=True, separator='.'): leaf.shape for path, leaf in
          jax.tree_util.tree_leaves_with_path(tree)}


def test_a_linear_probe_is_a_frozen_model_and_an_added_head():
  assert shapes(learns((Score(), Freeze()))) == {'score.vector': (16,)}
  assert shapes(learns((Quantize(), Score(), Freeze()))) == {'score.vector': (16,)}
  assert shapes(learns((Freeze(),), base=(LoRA(2), Score()))) == {'score.vector': (16,)}


def test_a_freeze_holds_what_is_there_when_it_comes():
  over, under = learns((LoRA(2, targets=('down',)), FreezeLowest(2))), learns((FreezeLowest(2), LoRA(2, targets=('down',))))
  assert {shape[0] for shape in shapes(over).values()} == {1} and {shape[0] for shape in shapes(under).values()} == {3}
  assert shapes(learns((Freeze(), NewTokens(2)))) == {'embedding.table': (2, 16)}
  assert 'embedding.table' not in shapes(learns((NewTokens(2), Freeze(('embedding',)))))
  assert shapes(learns((Freeze(('embedding',)), NewTokens(2))))['embedding.table'] == (2, 16)


def test_beside_adapters_the_new_rows_alone_learn_until_they_are_merged():
  config = replace(CONFIG, tied=False)
  found = shapes(learns((NewTokens(2), LoRA(2, targets=('down',))), config))
  assert found.pop('embedding.table') == (2, 16) and found.pop('head.weight') == (16, 2)
  assert found and all(name.startswith('layers.mlp.down.weight.') for name in found)
  assert shapes(learns((NewTokens(2),), config))['embedding.table'] == (42, 16)
  assert 'embedding.table' not in shapes(learns((NewTokens(2), LoRA(2), Merge(), LoRA(2)), config))


def test_no_gradient_is_worked_out_for_held_layers():
  config, counts = replace(CONFIG, width=64, vocab=64), {}
  batch = {name: jax.ShapeDtypeStruct((8, 65), jnp.int32) for name in ('tokens', 'segments')}
  for edits in ((), (FreezeLowest(2),)):
    built = build(config, NextToken(), Optimizer(), 4, batch=8, length=64, compute=Compute('unroll'), edits=edits,
                  devices=jax.devices()[:1])
    with jax.set_mesh(built.mesh):
      counts[edits] = compiled(built).lower(built.abstract, built.frozen, batch).compile().cost_analysis()['flops']
  assert counts[FreezeLowest(2),] < 0.75 * counts[()]


ENCODER = Decoder(50, 16, 2, Heads(2, 2, 8, qkv_bias=True, out_bias=True), Plain(32, 'gelu', bias=True), LayerNorm(1e-12),
                  'post', Learned(32), causal=False, embedding=Typed())


@pytest.mark.parametrize('edits, learning', [
    ((LoRA(4), Score()), ('layers.attention.out.weight.a', 'layers.mlp.down.weight.b.down', 'score.vector')),
    ((Score(), Freeze()), ('score.vector',)),
    ((Score(), FreezeLowest(1)), ('layers.mlp.down.weight', 'score.vector'))])
def test_an_encoder_learns_by_adapters_and_its_head_or_less(edits, learning):
  """MiniLM's form: bidirectional, norms after each sum, learned positions and types."""
  built = build(ENCODER, Far(), Optimizer(AdamW(1e-2)), 4, batch=8, length=16, edits=edits, devices=jax.devices()[:1])
  whole = jax.jit(partial(edited, edits))(unbox(functions(ENCODER).init(KEY)), KEY)
  params, frozen = jax.jit(partial(split, edits=edits))(whole)
  names = shapes(params)
  assert {*learning} <= names.keys()
  assert all(name.startswith('score') or (name.startswith('layers') and (not isinstance(edits[0], LoRA) or '.weight.' in name))
             for name in names)
  batch = {name: jnp.ones((8, 16), jnp.int32) * jnp.arange(1, 9)[:, None] for name in ('tokens', 'segments')}
  state, step = start(built, 0, params), compiled(built)
  with jax.set_mesh(built.mesh):
    for _ in range(3):
      state, metrics = step(state, frozen, batch)
  moved = jax.tree.map(lambda new, old: float(jnp.abs(new - old).max()), state.params, params)
  assert np.isfinite(float(metrics['loss'].value()))
  assert all(each > 0 for each in jax.tree.leaves(moved))


def test_what_cannot_be_held_is_refused(lineage):
  parent, _ = lineage
  for edits, said in (((Freeze(),), 'edit.nothing-learns'), ((FreezeLowest(4),), 'config.out-of-range'),
                      ((Freeze(('positions',)),), 'edit.nothing'), ((Quantize(), FreezeLowest(2)), 'edit.nothing-learns')):
    with pytest.raises(ConfigError) as caught:
      child(parent, edits=edits).build()
    assert caught.value.id == said
  for make in (lambda: Freeze(('heads',)), lambda: FreezeLowest(-1)):
    with pytest.raises(ConfigError):
      make()


def test_the_base_of_a_cut_leaf_is_what_the_parent_left(lineage):
  parent, store = lineage
  value = child(parent, name='base', edits=(FreezeLowest(2),))
  base = foundation(value, value.build(), store, jax.devices())[1]['base']
  below = base['layers']['mlp']['up']['weight']
  assert isinstance(below, Below) and LowRank not in map(type, jax.tree.leaves(base))
  np.testing.assert_array_equal(below.value, load(parent, store).params['layers']['mlp']['up']['weight'][:2])
