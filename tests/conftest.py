"""Eight pretended CPU devices, one shared compilation cache, and nothing from the network.

Nearly all of the time goes into LLVM, so on the CPU it is told not to optimise: XLA's program stays what it is, and its machine
code is there in half the time. `make test-gpu` sets JAX_PLATFORMS to nothing, which lets jax take a GPU that is here.
"""

import os
from pathlib import Path

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ['XLA_FLAGS'] = os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=8' + (
  ' --xla_backend_optimization_level=0' if os.environ['JAX_PLATFORMS'] == 'cpu' else '')
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

import jax
import pytest

jax.config.update('jax_compilation_cache_dir', str(Path(__file__).parent.parent / '.cache' / 'jax'))
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)


def pytest_collection_modifyitems(config, items):
  """Long campaigns run when asked for by name, GPU tests where there is a GPU."""
  asked = config.getoption('-m')
  for item in items:
    if item.get_closest_marker('campaign') and 'campaign' not in asked:
      item.add_marker(pytest.mark.skip(reason='long form: make campaign'))
    if item.get_closest_marker('gpu') and jax.default_backend() != 'gpu':
      item.add_marker(pytest.mark.skip(reason='no GPU here'))
