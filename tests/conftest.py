"""Eight pretended CPU devices, one shared compilation cache, and nothing from the network.

Nearly all of the time goes into compiling, so on the CPU three things are asked for that leave what a program computes as it
is: LLVM does not optimise, fusions become machine code directly and not by way of MLIR, and a program is one LLVM module and
not up to 32. A test of training takes half of the time that it takes with the first alone. `make test-gpu` sets JAX_PLATFORMS
to nothing, which lets jax take a GPU that is here.
"""

import gc
import os
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ['XLA_FLAGS'] = os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=8' + (
  ' --xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1'
  if os.environ['JAX_PLATFORMS'] == 'cpu' else '')
os.environ['XLA_FLAGS'] += (     # later jaxlibs have no such choice, and end where they do not know a flag
  ' --xla_cpu_use_fusion_emitters=false'
  if os.environ['JAX_PLATFORMS'] == 'cpu' and version('jaxlib').startswith('0.10.') else '')
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

import jax
import pytest

jax.config.update('jax_compilation_cache_dir', str(Path(__file__).parent.parent / '.cache' / 'jax'))
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)


def pytest_collection_finish():
  """What was imported stays to the end: the collector need not go through it again after each test."""
  gc.freeze()


def pytest_collection_modifyitems(config, items):
  """Long campaigns run when asked for by name, GPU tests where there is a GPU."""
  asked = config.getoption('-m')
  for item in items:
    if item.get_closest_marker('campaign') and 'campaign' not in asked:
      item.add_marker(pytest.mark.skip(reason='long form: make campaign'))
    if item.get_closest_marker('gpu') and jax.default_backend() != 'gpu':
      item.add_marker(pytest.mark.skip(reason='no GPU here'))
