"""Where loaded numbers are written: a CPU uses that memory as its array, so a model is never there twice."""

import jax
import numpy as np
import pytest

from model.weights.loading import ALIGNED, room


@pytest.mark.parametrize('kind', ['float32', 'bfloat16'])
@pytest.mark.parametrize('shape', [(), (3,), (5, 7, 3), (0, 4)])
def test_room_begins_where_arrays_of_the_device_do(shape, kind):
  found = room(shape, np.dtype(kind))
  assert found.shape == shape and found.dtype == kind and (not found.size or found.ctypes.data % ALIGNED == 0)
  found[...] = 1
  assert found.astype(np.float32).sum() == found.size


@pytest.mark.skipif(jax.default_backend() != 'cpu', reason='other devices have memory of their own')
def test_an_array_made_of_it_is_no_copy_and_one_of_other_memory_is():
  def pointer(values):
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.make_array_from_callback(values.shape, place, lambda index: values[index]).unsafe_buffer_pointer()

  made = room((64, 1024), np.dtype('float32'))
  made[...] = 1
  assert pointer(made) == made.ctypes.data
  aside = room((64 * 1024 + 1,), np.dtype('float32'))[1:].reshape(64, 1024)
  aside[...] = 1
  assert pointer(aside) != aside.ctypes.data
