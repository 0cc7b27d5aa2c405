"""Runs over an edited model: adapters alone learn and are saved, the base stays what it was, and a cut changes nothing."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.adapt import DoRA, LoRA, Merge
from model.adapter_tree import adapters, bases, detach
from model.edit import Edit
from model.errors import ConfigError
from model.lowrank import LowRank
from model.quantize import Quantize, Quantized
from model.sharding import MeshShape, is_box
from tests.train.going_on import check_goes_on
from tests.train.runs import checkpoint, same, tiny_run
from train.artifact import Store, decode, digest, encode
from train.build import compiled, start
from train.edits import join, split, whole
from train.price import price
from train.run import Saving, Watch
from train.trained import foundation, load
from train.types import Loss, Mean

KINDS = {'lora': (LoRA(2, dropout=0.1),), 'qdora': (Quantize(), LoRA(2), DoRA())}


@pytest.fixture(scope='module')
def lineage(tmp_path_factory):
  """A trained run, runs of adapters over it, and the store that holds them all."""
  folder = tmp_path_factory.mktemp('edits')
  parent = replace(tiny_run(folder), mesh=MeshShape(data=4, fsdp=2))
  store = Store(folder / 'runs')
  tuned = {kind: replace(parent, name=kind, restore=parent, edits=edits, steps=4, saving=Saving(every=2),
                         watch=Watch(heldout=4, samples=4, sample_tokens=4))
           for kind, edits in KINDS.items()}
  for each in tuned.values():
    store.make(each)
  return parent, tuned, store


@pytest.mark.parametrize('kind', KINDS)
def test_the_base_is_untouched_and_in_no_checkpoint(lineage, kind):
  parent, tuned, store = lineage
  after = load(tuned[kind], store)
  before = load(parent, store)
  if kind == 'lora':
    same(detach(after.params), before.params)
  else:
    built = tuned[kind].build()
    same(bases(after.params), foundation(tuned[kind], built, store, jax.devices())[1]['base'])
    assert isinstance(after.params['layers']['mlp']['up']['weight'].base, Quantized)
  names = {name for name in checkpoint(store, tuned[kind]) if name.startswith('params')}
  assert names and all('.a' in name or '.b.' in name or '.magnitudes.' in name for name in names)
  moments = {name for name in checkpoint(store, tuned[kind]) if '.mu.' in name}
  assert len(moments) == len(names)


@pytest.mark.parametrize('kind', KINDS)
def test_the_adapters_did_learn(lineage, kind):
  _, tuned, store = lineage
  found = load(tuned[kind], store)
  leaves = [w for w in jax.tree.leaves(found.params, is_leaf=lambda w: isinstance(w, LowRank)) if isinstance(w, LowRank)]
  assert found.step == 4 and len(leaves) == 4
  assert all(float(jnp.abs(b).max()) > 0 for w in leaves for b in w.b.values())


@pytest.mark.parametrize('kind', KINDS)
def test_optimizer_state_is_of_adapters_alone(lineage, kind):
  _, tuned, _ = lineage
  built = tuned[kind].build()
  count = sum(leaf.size for leaf in jax.tree.leaves(built.abstract.params))
  assert count == sum(leaf.size for leaf in jax.tree.leaves(adapters(join(built.abstract.params, built.frozen))))
  state = sum(leaf.size for leaf in jax.tree.leaves(built.abstract.opt_state))
  assert 2 * count <= state < 2 * count + 20         # two moments, and a few counters
  assert 'frozen' in price(built, 8, 16, 4)['parameters'] and 'frozen' in price(built, 8, 16, 4)['memory per device']


@pytest.mark.parametrize('kind', KINDS)
def test_cut_off_and_gone_on_is_as_never_stopped(lineage, kind):
  """The ledger would also refuse a step that came out otherwise the second time."""
  _, tuned, store = lineage
  check_goes_on(tuned[kind], store)


@pytest.mark.parametrize('kind', KINDS)
def test_other_devices_open_it(lineage, kind):
  """To the bit, but for the lengths of columns that DoRA adds up: a mesh that cuts the inputs adds in another order."""
  _, tuned, store = lineage
  one, all_of_them = load(tuned[kind], store, jax.devices()[:1]).params, load(tuned[kind], store).params
  jax.tree.map(lambda a, b: np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-6), one, all_of_them)
  same(adapters(one), adapters(all_of_them))


def test_a_child_goes_on_with_the_adapters_or_merges_them(lineage):
  """Without edits of its own a child trains its parent's adapters; merged, it trains everything."""
  _, tuned, store = lineage
  parent = load(tuned['lora'], store, jax.devices()).params
  more = replace(tuned['lora'], name='more', restore=tuned['lora'], edits=(), steps=1)
  params, frozen = foundation(more, more.build(), store, jax.devices())
  same(join(params, frozen), parent)
  assert len(jax.tree.leaves(params)) == 11
  full = replace(more, edits=(Merge(),))
  built = full.build()
  params, frozen = foundation(full, built, store, jax.devices())
  assert frozen == {} and jax.tree.structure(params) == jax.tree.structure(built.abstract.params)
  state = start(built, 0, params)
  batch = {'tokens': jnp.ones((8, 17), jnp.int32), 'segments': jnp.ones((8, 17), jnp.int32)}
  with jax.set_mesh(built.mesh):
    state, metrics = compiled(built)(state, {}, batch)
  assert float(metrics['grad_norm'].value()) > 0


def test_edits_are_part_of_what_a_run_is_and_none_are_not(lineage):
  parent, tuned, _ = lineage
  child = replace(parent, restore=parent)
  assert 'edits' not in encode(child, lambda _: None) and 'edits' in encode(child)
  assert len({digest(replace(child, edits=edits)) for edits in ((), (LoRA(2),), (LoRA(4),), (Quantize(), LoRA(2)))}) == 4
  assert decode(encode(tuned['qdora'])) == tuned['qdora']


def test_edits_without_a_parent_or_without_anything_that_learns_are_refused(lineage):
  parent, _, _ = lineage
  with pytest.raises(ConfigError) as caught:
    replace(parent, edits=(LoRA(2),))
  assert caught.value.id == 'config.edits'
  with pytest.raises(ConfigError) as caught:
    replace(parent, restore=parent, edits=(Quantize(),)).build()
  assert caught.value.id == 'edit.nothing-learns'


@dataclass(frozen=True)
class First(Edit):
  """The first so many layers."""

  layers: int

  def __call__(self, params, key):
    return {**params, 'layers': jax.tree.map(lambda leaf: leaf.replace(value=leaf.value[:self.layers]) if is_box(leaf) else
                                             leaf[:self.layers], params['layers'], is_leaf=is_box)}

  def model(self, config):
    return replace(config, layers=self.layers)


def test_an_edit_can_make_another_model_and_a_child_of_that_goes_on(lineage):
  small, _, store = lineage
  parent, edit = replace(small, name='two', model=replace(small.model, layers=2), steps=1), First(1)
  store.make(parent)
  short = replace(parent, name='short', model=edit.model(parent.model), restore=parent, edits=(edit,), steps=1)
  store.make(short)
  after, before = load(short, store), load(parent, store)
  assert after.model.config.layers == 1
  assert jax.tree.map(jnp.shape, after.params['layers']) == jax.tree.map(lambda x: (1, *x.shape[1:]), before.params['layers'])
  longer = replace(short, name='longer', restore=short, edits=(LoRA(2),))
  same(jax.tree.map(jnp.shape, detach(join(longer.build().abstract.params, longer.build().frozen))),
       jax.tree.map(jnp.shape, after.params))


def test_another_model_than_the_edits_make_is_refused_before_anything_compiles(lineage):
  parent, _, _ = lineage
  for wrong in (replace(parent, restore=parent, model=replace(parent.model, layers=2)),
                replace(parent, restore=parent, model=replace(parent.model, width=2 * parent.model.width))):
    with pytest.raises(ConfigError) as caught:
      wrong.build()
    assert caught.value.id == 'config.other-model'
  replace(parent, restore=parent, model=replace(parent.model, softcap=30.0)).build()


def test_a_loss_of_a_plain_tree_is_traced_as_it_is():
  def loss(params, frozen, batch, key):
    return Loss(Mean.of(params['w'] * batch['x'], 1), {})

  arguments = ({'w': jnp.ones(())}, {}, {'x': jnp.ones(())}, jax.random.key(0))
  assert str(jax.make_jaxpr(whole(loss))(*arguments)) == str(jax.make_jaxpr(loss)(*arguments))
  assert split(arguments[0]) == (arguments[0], {})
