"""The sorted, grouped computation against a loop over tokens, and the router's penalties by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.config import Gated, MoE, Plain
from model.mlp import activate
from model.moe import Experts, losses, route
from tests.model.variants import small

EXPERTS = {'gated': MoE(4, 2, Gated(24)), 'plain': MoE(5, 3, Plain(12, 'relu2'), renormalise=False), 'one': MoE(3, 1, Gated(8))}


def drawn(moe):
  """The layer's parameters, and positions to put through it."""
  config = small(mlp=moe)
  gates = (2,) if isinstance(moe.expert, Gated) else ()
  keys = jax.random.split(jax.random.key(0), 4)
  shapes = {'router': (16, moe.experts), 'up': (moe.experts, 16, *gates, moe.expert.hidden),
            'down': (moe.experts, moe.expert.hidden, 16)}
  params = {name: 0.3 * jax.random.normal(key, shape) for key, (name, shape) in zip(keys, shapes.items())}
  return config, params, jax.random.normal(keys[3], (2, 6, 16))


def loop(config, params, x_BLD):
  """Token by token, expert by expert, in NumPy."""
  moe, rows = config.mlp, []
  router, up, down = (np.asarray(params[name]) for name in ('router', 'up', 'down'))
  for x_D in np.asarray(x_BLD).reshape(-1, 16):
    probability_E = np.exp(x_D @ router) / np.exp(x_D @ router).sum()
    best = np.argsort(-probability_E)[:moe.top_k]
    gates = probability_E[best] / (probability_E[best].sum() if moe.renormalise else 1.0)
    rows.append(sum(gate * (hidden(moe.expert, np.tensordot(x_D, up[e], 1)) @ down[e]) for gate, e in zip(gates, best)))
  return np.stack(rows).reshape(x_BLD.shape)


def hidden(expert, h):
  return h[0] / (1 + np.exp(-h[0])) * h[1] if isinstance(expert, Gated) else np.maximum(h, 0) ** 2


@pytest.mark.parametrize('name', EXPERTS)
def test_grouped_experts_equal_a_loop(name):
  config, params, x_BLD = drawn(EXPERTS[name])
  seen = jnp.ones((2, 6), bool)

  def grouped(params):
    return Experts(config, config.mlp).apply({'params': params}, x_BLD, seen)[0]

  @jax.jit
  def both(params):
    gradients = [jax.grad(lambda p, f=f: (f(p) ** 2).sum())(params) for f in (grouped, lambda p: dense(config, p, x_BLD))]
    return grouped(params), gradients

  found, (gradient, expected) = both(params)
  np.testing.assert_allclose(found, loop(config, params, x_BLD), atol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), gradient, expected)


def dense(config, params, x_BLD):
  """All experts on all tokens, weighed by gates that are 0 for most: differentiable and simple."""
  moe = config.mlp
  gates_BLJ, chosen_BLJ = route(x_BLD @ params['router'], moe)
  gates_BLE = (jax.nn.one_hot(chosen_BLJ, moe.experts) * gates_BLJ[..., None]).sum(2)
  h = activate(moe.expert, jnp.einsum('BLD,ED...->BLE...', x_BLD, params['up']))
  return jnp.einsum('BLEF,EFD,BLE->BLD', h, params['down'], gates_BLE)


def test_an_even_router_has_balance_one_and_a_stuck_one_has_e():
  moe = MoE(4, 1, Gated(8), balance=1.0, router_z=1.0)
  seen = jnp.ones((1, 8), bool)
  even = jnp.tile(10.0 * jnp.eye(4), (2, 1))[None]
  stuck = jnp.tile(jnp.array([10.0, 0, 0, 0]), (8, 1))[None]
  for router, expected in ((even, 1.0), (stuck, 4.0)):
    found = losses(router, route(router, moe)[1], seen, moe)
    np.testing.assert_allclose(found['balance'], [expected], atol=1e-2)
    np.testing.assert_allclose(found['router_z'], [100.0], rtol=1e-2)


def test_penalties_of_a_row_ignore_padding_and_other_rows():
  moe = MoE(4, 2, Gated(8))
  router = jax.random.normal(jax.random.key(0), (2, 8, 4))
  seen = jnp.array([[True] * 5 + [False] * 3, [True] * 8])
  both = losses(router, route(router, moe)[1], seen, moe)
  alone = losses(router[:1, :5], route(router[:1, :5], moe)[1], seen[:1, :5], moe)
  for name in both:
    np.testing.assert_allclose(both[name][0], alone[name][0], rtol=1e-5)
  nothing = losses(router, route(router, moe)[1], jnp.zeros((2, 8), bool), moe)
  assert all(np.isfinite(x).all() for x in nothing.values())
