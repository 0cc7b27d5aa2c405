"""The coordinate check of Yang et al. 2022: after a few steps of Adam, sizes must not depend on the width."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import optax
import pytest

from model.attention import score_scale
from model.config import Attention, Gated, MuP
from model.decoder import build
from model.mup import lr_multipliers
from model.sharding import unbox
from tests.model.variants import small, tokens

BASE, WIDE, STEPS, RATE = 32, 128, 4, 0.02


def learned(width: int, mup: MuP | None) -> float:
  """How far the logits moved in a few steps, mean absolute difference."""
  config = small(width=width, attention=Attention(width // 16, width // 16, 16), mlp=Gated(2 * width), layers=1, tied=False,
                 mup=mup)
  model = build(config)
  boxed = jax.eval_shape(model.init, jax.random.key(0))
  rates, tokens_BL = lr_multipliers(config, boxed), tokens(8, 17)
  adam = optax.scale_by_adam(eps=1e-12)

  def logits(params):
    return model.logits(params, model.hidden(params, tokens_BL[:, :-1]).x_BLD)

  def loss(params):
    x_BLD = model.hidden(params, tokens_BL[:, :-1]).x_BLD
    return -model.logp(params, x_BLD, tokens_BL[:, 1:]).mean()

  @jax.jit
  def run(key):
    params = unbox(model.init(key))

    def step(carry, _):
      params, state = carry
      updates, state = adam.update(jax.grad(loss)(params), state)
      return (jax.tree.map(lambda p, u, rate: p - RATE * rate * u, params, updates, rates), state), None

    after = jax.lax.scan(step, (params, adam.init(params)), length=STEPS)[0][0]
    return jnp.abs(logits(after) - logits(params)).mean()

  return float(run(jax.random.key(0)))


def test_logits_move_as_far_at_every_width_with_mup_and_further_without():
  base = learned(BASE, None)
  assert 0.5 < learned(WIDE, MuP(BASE, base_head_size=16)) / base < 1.2
  assert learned(WIDE, None) / base > 2


def test_at_the_base_width_mup_changes_nothing():
  mup = MuP(base_width=16, base_head_size=8)
  with_mup, without = small(mup=mup), small()
  assert score_scale(with_mup) == pytest.approx(score_scale(without))
  boxed = jax.eval_shape(build(with_mup).init, jax.random.key(0))
  assert set(jax.tree.leaves(lr_multipliers(with_mup, boxed))) == {1.0}
  found, expected = (model.logits(unbox(model.init(jax.random.key(0))), jnp.ones((1, 1, 16)))
                     for model in (build(with_mup), build(without)))
  assert jnp.array_equal(found, expected)


def test_scores_shrink_with_the_head_not_with_its_root():
  config = small(mup=MuP(base_width=16, base_head_size=8), attention=Attention(2, 2, 32))
  assert score_scale(config) == pytest.approx(8 ** -0.5 / 4)
  assert score_scale(replace(config, attention=Attention(2, 2, 32, scale=0.3))) == 0.3
