"""rlax's own functions on given arrays, a row at a time, for they take one sequence."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import rlax


def main(source: str, target: str) -> None:
  with np.load(source) as held:
    given = {name: jnp.asarray(held[name]) for name in held.files}
  advantage_BT = given['advantage_B'][:, None] * jnp.ones_like(given['logp_BT'])

  def surrogate(logp_BT):
    ratio_BT = jnp.exp(logp_BT - given['old_BT'])
    return jax.vmap(lambda ratio_T, gain_T: rlax.clipped_surrogate_pg_loss(ratio_T, gain_T, 0.2))(ratio_BT, advantage_BT)

  def estimate(rewards_T, values_T):
    values = jnp.append(values_T, 0.0)                     # nothing is to come after the end
    return rlax.truncated_generalized_advantage_estimation(rewards_T, 0.9 * jnp.ones_like(rewards_T), 0.8, values)

  np.savez(target, surrogate=surrogate(given['logp_BT']),
           surrogate_grad=jax.grad(lambda x: surrogate(x).sum())(given['logp_BT']),
           gae=jax.vmap(estimate)(given['rewards_BT'], given['values_BT']),
           entropy=-jax.vmap(lambda logits: rlax.entropy_loss(logits[None], jnp.ones(1)))(given['logits'].reshape(-1, 9)))


if __name__ == '__main__':
  main(*sys.argv[1:])
