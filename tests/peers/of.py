"""Programs of other libraries, run where these are installed, on the arrays of a test.

A peer's packages and ours do not go into one environment. So its program is a file beside this one, run by the Python of an
environment of its own, which reads arrays from one file and writes arrays to another.
"""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def python_of(peer: str) -> Path:
  """The Python that has this peer, by the end of its environment's name; the test is skipped by that name without it."""
  found = sorted(ROOT.glob(f'.venv*-peers-{peer}/bin/python'))
  if not found:
    pytest.skip(f'.venv-peers-{peer} is not here: make peers')
  return found[0]


def told(peer: str, program: str, folder: Path, **arrays: np.ndarray) -> dict[str, np.ndarray]:
  """What the program writes when it is given these arrays. Raises: AssertionError with what it said if it fails."""
  python = python_of(peer)
  np.savez(folder / 'in.npz', **arrays)
  command = [str(python), '-W', 'ignore', str(HERE / program), str(folder / 'in.npz'), str(folder / 'out.npz')]
  run = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=folder,
                       env=os.environ | {'JAX_PLATFORMS': 'cpu', 'HF_HUB_OFFLINE': '1', 'CUDA_VISIBLE_DEVICES': ''})
  assert run.returncode == 0, run.stderr[-4000:]
  with np.load(folder / 'out.npz') as found:
    return dict(found)
