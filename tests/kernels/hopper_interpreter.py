"""Patches to Pallas' interpreter for NVIDIA GPUs (jax 0.12.0.1): features that the Hopper kernels need and it lacks.

WGMMA with an operand in registers, accumulators with an initial value, copies to global memory that add, and semaphores there.
Programs that wait for each other run concurrently, as a cluster, so that races which the waiting prevents could happen.
"""

import collections
import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import callback, state
from jax._src.pallas import primitives
from jax._src.pallas.mosaic_gpu import primitives as gpu_primitives
from jax._src.pallas.mosaic_gpu.interpret import gpu_callbacks, jaxpr_interpret
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plg

Interpreter = next(x for x in vars(jaxpr_interpret).values() if hasattr(x, '_interpret_wgmma_ref_p'))
whole, rest, plain, alone = (Interpreter._interpret_wgmma_ref_p, Interpreter._interpret_arithmetic_primitive,
                             gpu_callbacks.copy_smem_to_gmem, plg.kernel)
ACC = plg.ACC


@contextmanager
def extended(turns: bool = True) -> Iterator[None]:
  """The patched interpreter; without `turns` nobody waits for a semaphore (a negative control)."""
  counts, begun = Counts(turns), mock.Mock(side_effect=ACC)
  begun.init = lambda value: value
  with ExitStack() as patches:
    for owner, name, instead in [
      (Interpreter, '_interpret_wgmma_ref_p', product), (Interpreter, '_interpret_arithmetic_primitive', arithmetic),
      (gpu_callbacks, 'copy_smem_to_gmem', copied), (gpu_callbacks, 'AsyncCopySmemToGmemTask', Copy),
      (pl, 'run_state', summed), (plg, 'ACC', begun), (plg, 'kernel', side_by_side),
      # What Blackwell alone has gives its place to what the interpreter would not know.
      (gpu_primitives, 'async_load_tmem_p', gpu_primitives.wgmma_accumulator_store_p),
      (Interpreter, '_interpret_async_load_tmem_p', stored),
      (gpu_primitives, 'commit_tmem_p', gpu_primitives.semaphore_wait_p),
      (Interpreter, '_interpret_commit_tmem_p', functools.partialmethod(counted, counts.wait)),
      (gpu_primitives, 'wait_load_tmem_p', gpu_primitives.semaphore_signal_p),
      (Interpreter, '_interpret_wait_load_tmem_p', functools.partialmethod(counted, counts.signal)),
    ]:
      patches.enter_context(mock.patch.object(owner, name, instead))
    yield


def summed(add):
  def go(begin):
    def body(ref):
      add(ref)
      return ref[...]
    return begin + pl.run_scoped(body, ACC(begin.shape, begin.dtype))
  return go


def product(interpreter, eqn, token, read):
  """wgmma with its first operand in registers."""
  if isinstance(eqn.invars[1].aval, state.AbstractRef):
    return whole(interpreter, eqn, token, read)
  total, a, b, *leaves = read()
  none = jax.tree.structure([])
  trees = [eqn.params[f'{name}_transforms_tree'] or none for name in ('acc', 'a', 'b')]
  steps = jax.tree.unflatten(jax.tree_util.treedef_tuple(trees), leaves)
  (total, to), (b, by) = (jaxpr_interpret.resolve_ref(eqn.invars[n].aval, key, steps[n]) for n, key in ((0, total), (2, b)))
  call = functools.partial(multiply, source=eqn.source_info)
  return callback.io_callback(call, gpu_callbacks.TOKEN_SHAPE_DTYPE, token, interpreter.mesh_location, interpreter.thread, a,
                              total, to, b, by), []


def multiply(token, location, thread, a, total, to, b, by, *, source):
  memory, info = gpu_callbacks._get_shared_memory(), gpu_callbacks.memory.GPULoggingInfo(location, thread, source)

  def place(key, steps):
    key = gpu_callbacks.HostAllocationKey.from_array(key)
    return key, memory.access(key, jax.tree.map(int, gpu_callbacks._remove_noop_transforms(steps)))

  def held(at):
    return memory.get_buffer_content(*at, thread, logging_info=info)[0]

  total, b = place(total, to), place(b, by)
  result = held(total) + np.matmul(np.asarray(a), held(b), dtype=np.float32)
  memory.store_buffer_content(*total, result, thread, logging_info=info)
  return token


def stored(interpreter, eqn, token, values):
  """Writes to an accumulator's reference, which set its initial value."""
  def store(token, location, thread, key, value):
    key, memory = gpu_callbacks.HostAllocationKey.from_array(key), gpu_callbacks._get_shared_memory()
    memory.store_buffer_content(key, memory.access(key, ()), np.asarray(value), thread,
                                logging_info=gpu_callbacks.memory.GPULoggingInfo(location, thread, eqn.source_info))
    return token

  return callback.io_callback(store, gpu_callbacks.TOKEN_SHAPE_DTYPE, token, interpreter.mesh_location, interpreter.thread,
                              *values), []


def arithmetic(interpreter, eqn, read):
  """A reference to semaphores is a dummy number: their values are stored by index."""
  return jnp.int32(0) if eqn.primitive is primitives.get_global_p else rest(interpreter, eqn, read)


class Copy(gpu_callbacks.AsyncCopySmemToGmemTask):
  """A copy to global memory, which adds to it where the kernel asks for that."""

  def __call__(self, which: int) -> None:
    if not getattr(ADDS, 'here', False):
      super().__call__(which)
      return
    memory, info = gpu_callbacks._get_shared_memory(), {'logging_info': self.logging_info}
    self.pre_read(which, memory)
    value = memory.get_buffer_content(self.src_allocation_key, self.src_access, self.thread, **info)[0]
    self.post_read(which, memory)
    shape = memory.buffer_shape_and_dtype(self.dst_allocation_key).shape
    place, value = gpu_callbacks._clip_store_to_shape(self.dst_access, value, shape)
    held = memory.get_buffer_content(self.dst_allocation_key, place, self.thread, **info)[0]
    memory.store_buffer_content(self.dst_allocation_key, place, held + value, self.thread, **info)
    self.post_write(which, memory)


ADDS = threading.local()


def copied(*, reduction_op, **how):
  ADDS.here = reduction_op == 'add'
  return plain(reduction_op=None, **how)


class Counts:
  """Counts in global memory, by their place, each with what those that counted had seen. A turn is waited for to the one."""

  def __init__(self, turns: bool):
    self.turns, self.counts, self.clocks, self.changed = turns, collections.Counter(), {}, threading.Condition()

  def signal(self, thread: Any, place: tuple[int, ...], value: int) -> None:
    clock = gpu_callbacks._get_shared_memory().incr_clock(thread)
    with self.changed:
      self.clocks.setdefault(place, clock).update(clock)
      self.counts[place] += value
      self.changed.notify_all()

  def wait(self, thread: Any, place: tuple[int, ...], value: int) -> None:
    memory = gpu_callbacks._get_shared_memory()
    if not self.turns or not value:
      return
    with self.changed:
      assert self.changed.wait_for(lambda: self.counts[place] >= value, 60), f'the turn {value} at {place} never came'
      assert self.counts[place] == value, f'another took the turn {value} at {place}'
      with memory.lock:
        memory.clocks[thread].update(self.clocks[place])


def counted(interpreter: Any, act: Callable[..., None], eqn: Any, token: jax.Array, values: Any) -> tuple[jax.Array, list]:
  _, transforms, value, *_ = jax.tree.unflatten(eqn.params['args_tree'], values)

  def go(token, thread, place, value):
    act(thread, tuple(map(int, place)), int(value))
    return token

  call = gpu_callbacks.fail_on_exception(lambda **arrays: go(**arrays))
  return callback.io_callback(call, gpu_callbacks.TOKEN_SHAPE_DTYPE, token=token, thread=interpreter.thread,
                              place=tuple(transforms[0].indices), value=value), []


def side_by_side(body, *, grid, grid_names, **how):
  sizes = dict(zip(grid_names, grid))
  cluster = {'blocks': sizes.pop('blocks')} if 'near' in sizes else {}
  return alone(body, grid=tuple(sizes.values()), grid_names=tuple(sizes), cluster=tuple(cluster.values()),
               cluster_names=tuple(cluster), **how)
