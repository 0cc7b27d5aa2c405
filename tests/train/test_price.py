"""What `--dry_run` says before a step is compiled agrees with what XLA counts in the step once it is.

XLA's FLOPs include elementwise work, a few percent at these sizes, and a loop's body once however often it runs. Its scores
are those that a form of attention computes: blocks below the diagonal by the blocked form, all by the reference.
"""

import functools
from dataclasses import replace

import jax
import numpy as np
import pytest

from model.adapt import LoRA
from model.classifier import Classifier
from model.config import Compute
from model.count import flops_per_token
from model.freeze import Freeze, FreezeLowest
from model.sharding import MeshShape, batch_sharding
from model.sizes import llama
from train.build import build, compiled
from train.classification import Classification
from train.flops import work_per_token
from train.memory import temporaries
from train.objectives import NextToken
from train.optimizer import Optimizer
from train.price import bytes_per_device, price

ROWS, LENGTH = 4, 256
MODEL = llama(512, 128, 2, 4)
READER = replace(MODEL, causal=False)
FLOPS, BYTES = 1.12, 0.25              # XLA's count is at most so many times the price; memory is within so much of it


class Measured:
  """A step of a model on rows: what it was priced at, and what the compiled program says of itself."""

  def __init__(self, model=MODEL, edits=(), compute=Compute(), parts=1, mesh=MeshShape(data=1), devices=1, rows=ROWS):
    objective = Classification() if any(isinstance(edit, Classifier) for edit in edits) else NextToken()
    self.built = build(model, objective, Optimizer(), 1, batch=rows, length=LENGTH, parts=parts, compute=compute, mesh=mesh,
                       edits=edits, devices=jax.devices()[:devices])
    masked = objective.form == 'classes'
    shape, place = (rows, LENGTH + (not masked)), batch_sharding(self.built.mesh)
    columns = {'tokens': np.int32, 'segments': np.int32} | ({'targets': np.int32, 'mask': np.float32} if masked else {})
    batch = {name: jax.ShapeDtypeStruct(shape, kind, sharding=place) for name, kind in columns.items()}
    with jax.set_mesh(self.built.mesh):
      program = compiled(self.built).lower(self.built.abstract, self.built.given, batch).compile()
    said = program.memory_analysis()
    self.flops, self.bytes = program.cost_analysis()['flops'], said.temp_size_in_bytes + said.argument_size_in_bytes
    self.priced_flops = rows * LENGTH * work_per_token(self.built, LENGTH)
    self.priced_bytes = bytes_per_device((self.built.abstract, self.built.frozen)) + temporaries(
      self.built, compute, rows, LENGTH, parts)


@functools.cache
def whole():
  return Measured()


CASES = {
  'all learns': {},
  'adapters': {'edits': (LoRA(4),)},
  'half is frozen': {'edits': (FreezeLowest(1),)},
  'classes': {'model': READER, 'edits': (Classifier(4),)},
  'a probe': {'model': READER, 'edits': (Classifier(4), Freeze())},
}


@pytest.mark.parametrize('name', CASES)
def test_flops_are_what_xla_counts_less_elementwise_work(name):
  found = Measured(**CASES[name]) if CASES[name] else whole()
  assert 1.0 <= found.flops / found.priced_flops <= FLOPS
  if name != 'all learns':               # the control: 6N of all, as if it learned
    assert found.flops < 0.97 * ROWS * LENGTH * flops_per_token(found.built.model.config, LENGTH)
  if name != 'a probe':                  # of which nothing is kept but what the compiler likes
    assert abs(found.priced_bytes / found.bytes - 1) <= BYTES


def test_attention_is_priced_at_the_half_that_is_seen():
  """Written out, all scores are computed: the other half again, as much as the price has for its half."""
  found, blocked = Measured(compute=Compute(attention='reference')), whole()
  half = ROWS * LENGTH * 12 * MODEL.layers * (LENGTH / 2) * MODEL.width
  assert 1.0 <= found.flops / (found.priced_flops + half) <= FLOPS
  assert 0.4 <= (found.flops - blocked.flops) / half <= 1.1                   # blocks on the diagonal are computed whole


def test_a_loop_is_priced_as_often_as_it_runs():
  """XLA counts one part of two, and one layer of two: the price does not depend on how a step is written."""
  plain, parts, scanned = whole(), Measured(parts=2), Measured(compute=Compute(layers='scan'))
  assert plain.priced_flops == parts.priced_flops == scanned.priced_flops
  assert parts.flops < 0.6 * plain.flops and scanned.flops < 0.7 * plain.flops
  for found in (parts, scanned):
    assert abs(found.priced_bytes / found.bytes - 1) <= BYTES
  assert parts.priced_bytes < 0.7 * plain.priced_bytes


@pytest.mark.parametrize('mesh', [MeshShape(1, 8), MeshShape(1, 2, 1, 4), MeshShape(2, 1, 4)])
def test_memory_of_each_device_of_a_mesh(mesh):
  found = Measured(mesh=mesh, devices=8, rows=16)
  assert abs(found.priced_bytes / found.bytes - 1) <= BYTES


def test_recomputing_a_scanned_layer_is_priced():
  kept, again = (Measured(replace(MODEL, layers=8), compute=Compute(layers='scan', remat=remat)) for remat in ('none', 'full'))
  assert abs(again.priced_bytes / again.bytes - 1) <= BYTES
  assert again.bytes < 0.7 * kept.bytes and again.priced_bytes < 0.7 * kept.priced_bytes


def test_the_words_and_both_sides_of_a_pair():
  """A row of two texts of L tokens costs as much as two rows, and not what one of 2 L does."""
  built = whole().built
  one, two = price(built, 8, LENGTH, 4), price(built, 4, LENGTH, 4, sides=2)
  assert one['compute'] == two['compute'] and one['memory per device'] == two['memory per device']
  assert two['tokens'] == '8.19k in 4 steps of 4 rows of 512'
  assert price(built, 4, 2 * LENGTH, 4)['compute'] > one['compute']
  assert 'of state, ' in one['memory per device'] and 'of activations in 1 part' in one['memory per device']
