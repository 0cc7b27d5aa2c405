"""The step: a gradient becomes an update. Features wrap `GradFn` or chain onto `tx`; none of them is an `if` in here."""

import jax
import jax.numpy as jnp
import optax

from train.types import Batch, Frozen, GradFn, Key, LossFn, Mean, Params, State, StepFn


def gradient(loss_fn: LossFn) -> GradFn:
  """The gradient of the loss's sum (not of its mean), beside the loss itself."""

  def total(params: Params, frozen: Frozen, batch: Batch, key: Key):
    loss = loss_fn(params, frozen, batch, key)
    return loss.objective.total, loss

  def grad_fn(params, frozen, batch, key):
    return jax.grad(total, has_aux=True)(params, frozen, batch, key)

  return grad_fn


def accumulate(grad_fn: GradFn, parts: int) -> GradFn:
  """`grad_fn` over `parts` equal parts of the batch, one after another: the same sum, with smaller temporaries.

  Rows are dealt like cards (row i goes to part i mod parts), so that each part stays spread over the data axes of the mesh.
  Gradients and loss halves are added in float32. Equal to the whole batch up to the rounding of the sums.
  """
  if parts == 1:
    return grad_fn
  grad_fn = jax.jit(grad_fn)      # traced once, for the shapes of the sums and for the loop alike: a second of each start

  def accumulated(params, frozen, batch, key):
    dealt = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), batch)

    def part(index):
      rows = jax.tree.map(lambda x: x[index], dealt)
      return grad_fn(params, frozen, rows, jax.random.fold_in(key, index))

    def body(sums, index):
      return jax.tree.map(jnp.add, sums, part(index)), None

    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.promote_types(x.dtype, jnp.float32)), jax.eval_shape(part, 0))
    return jax.lax.scan(body, zeros, jnp.arange(parts))[0]

  return accumulated


def make_step(grad_fn: GradFn, tx: optax.GradientTransformation) -> StepFn:
  """A pure step `(state, frozen, batch) -> (state, metrics)`; the update sees the gradient of the *mean* loss."""
  tx = optax.with_extra_args_support(tx)

  def step(state: State, frozen: Frozen, batch: Batch) -> tuple[State, dict[str, Mean]]:
    grads, loss = grad_fn(state.params, frozen, batch, jax.random.fold_in(state.key, state.step))
    grads = jax.tree.map(lambda g: g / jnp.maximum(loss.objective.weight, 1e-20), grads)
    updates, opt_state = tx.update(grads, state.opt_state, state.params, value=loss.objective.value())
    params = optax.apply_updates(state.params, updates)
    metrics = {'loss': loss.objective, 'grad_norm': Mean.of(optax.global_norm(grads)), **loss.metrics}
    return State(state.step + 1, params, opt_state, state.key), metrics

  return step


def born(init, key: Key, tx: optax.GradientTransformation) -> State:
  """The state at step 0. To be called inside jit, so that no two leaves share a buffer and shardings can be set."""
  init_key, state_key = jax.random.split(key)
  params = init(init_key)
  return State(jnp.zeros((), jnp.int32), params, tx.init(params), state_key)
