"""Attention's kernels for Hopper, on one. Each case is a process of its own: a wrong barrier would wait for ever."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from tests.gpu.hopper import CASES, ONE

pytestmark = pytest.mark.gpu
LIMIT = 90                             # seconds, most of them to compile


@pytest.mark.parametrize(('name', 'form'), [*((name, ()) for name in CASES), *((name, ('one',)) for name in ONE)])
def test_case(name, form):
  if float(getattr(jax.devices()[0], 'compute_capability', 0)) != 9:
    pytest.skip('no Hopper here')
  done = subprocess.run([sys.executable, '-m', 'tests.gpu.hopper', name, *form], capture_output=True, text=True, timeout=LIMIT,
                        cwd=Path(__file__).parents[2], env={**os.environ, 'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'})
  assert done.returncode == 0, done.stderr[-2000:]
