"""Batches of pairs for tests of what learns from them, and the laws that all such objectives keep."""

import jax
import jax.numpy as jnp
import numpy as np

from model.adapt import LoRA
from model.sharding import MeshShape, batch_sharding
from train.edits import split, whole
from train.step import accumulate, gradient
from train.types import Objective

LENGTHS = ((9, 6), (5, 8), (7, 7), (4, 9), (8, 5), (6, 6), (9, 4), (5, 9))      # tokens of (chosen, rejected)
PROMPT = 2


def batch(width: int = 10, pad: int = 0, seed: int = 0, lengths=LENGTHS) -> dict[str, jax.Array]:
  """Pairs whose sides share a prompt of 2 tokens; what stands in padding is `pad`."""
  random, count = np.random.default_rng(seed), len(lengths)
  drawn = random.integers(1, 64, (count, 2, max(map(max, lengths), default=0)))
  drawn[:, 1, :PROMPT] = drawn[:, 0, :PROMPT]
  real = np.arange(width) < np.array(lengths)[..., None]
  tokens = np.full((count, 2, width), pad)
  tokens[real] = drawn[real[:, :, :drawn.shape[2]]]
  mask = real & (np.arange(width) >= PROMPT)
  return {'tokens': jnp.array(tokens, jnp.int32), 'segments': jnp.array(real, jnp.int32), 'mask': jnp.array(mask, jnp.float32),
          'margin': jnp.array(random.uniform(0, 2, count), jnp.float32), 'label': jnp.ones(count),
          'reference': jnp.array(random.normal(-20, 3, (count, 2)), jnp.float32)}


def swapped(batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
  """The same pairs with the other side as the chosen one."""
  return {name: value[:, ::-1] if value.ndim > 1 else value for name, value in batch.items()}


def taken(objective: Objective, model, params, batch, parts: int = 1):
  """(gradient, loss) of the sum over pairs."""
  return jax.jit(accumulate(gradient(objective(model)), parts))(params, {}, batch, jax.random.key(0))


def same(one, two, atol: float = 1e-5) -> None:
  """Fails unless loss, metrics and gradient agree."""
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=atol), one, two)


def check_own_reference(objective: Objective, model, params, sides, start: float) -> None:
  """Adapters are their own reference, whatever they have learnt: the loss is `start` at first, what is cached of the base is
  what is computed of it, and no gradient goes there."""
  learns, frozen = split(LoRA(rank=2)(params, jax.random.key(1)))
  learnt = jax.tree.map(lambda x: x + 0.1, learns)
  live = {name: value for name, value in sides.items() if name != 'reference'}
  grad_fn = jax.jit(gradient(whole(objective(model))))
  np.testing.assert_allclose(grad_fn(learns, frozen, live, jax.random.key(0))[1].objective.value(), start, rtol=1e-6)
  cached, computed = grad_fn(learnt, frozen, sides, jax.random.key(0)), grad_fn(learnt, frozen, live, jax.random.key(0))
  assert abs(float(cached[1].objective.value()) - start) > 1e-2
  same(cached, computed)


def check_invariant(objective: Objective, model, params) -> None:
  """More padding, padding by any token, parts, devices, and rows that only fill up: none of these changes anything."""
  plain = taken(objective, model, params, batch())
  assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(plain[0])) > 1e-3
  eos = int(batch()['tokens'][0, 0, 8])                 # the very token that the first side ends with
  wide = batch(width=16, pad=eos)
  same(plain, taken(objective, model, params, jax.tree.map(lambda x: jnp.concatenate([x, jnp.zeros_like(x[:2])]), wide)))
  same(plain, taken(objective, model, params, batch(), parts=4))
  mesh = MeshShape(data=2, fsdp=4).build(jax.devices())
  with jax.set_mesh(mesh):
    laid = jax.device_put(batch(), batch_sharding(mesh))
    same(plain, jax.device_get(taken(objective, model, params, laid)))
