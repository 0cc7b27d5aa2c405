"""Conversations that share a row are judged as if alone, and questions alone weigh nothing."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.chat import ChatML, Message, render
from tests.model.chats import TALK, own
from tests.model.variants import VARIANTS, made, small
from train.objectives import NextToken


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
