"""What a training promises, on a GPU: the CPU's losses, one cache for both, bits that survive a stop, saves that travel."""

import jax
import numpy as np
import pytest

from tests.gpu.losses import computed
from tests.gpu.processes import told_by
from tests.gpu.restored import digests
from tests.model.test_generate import check_greedy
from tests.train.saving.saves import at
from train.checkpoint import Checkpoints

pytestmark = pytest.mark.gpu


def test_losses_and_gradients_are_the_cpus(tmp_path):
  """In float32 up to the rounding of sums, in bfloat16 up to that of its operands."""
  file = tmp_path / 'cpu.npz'
  assert told_by('tests.gpu.losses', str(file), JAX_PLATFORMS='cpu') == 'cpu'
  here, there = computed(), np.load(file)
  assert set(here) == set(there.files)
  for name, value in here.items():
    tolerance = 3e-2 if 'bfloat16' in name else 2e-4
    np.testing.assert_allclose(value, there[name], rtol=tolerance, atol=tolerance * np.abs(there[name]).max(), err_msg=name)
  assert np.abs(here['llama gradient']).max() > 10 * 2e-4


@pytest.mark.parametrize('name', ['llama', 'gemma3'])
def test_a_cache_writes_what_the_full_forward_would(name):
  with jax.default_matmul_precision('highest'):
    check_greedy(name)


def test_resuming_changes_no_bit(tmp_path):
  """With deterministic operations. Control: an optimizer that is forgotten is seen."""
  told = told_by('tests.gpu.stopped', str(tmp_path), XLA_FLAGS='--xla_gpu_deterministic_ops=true', JAX_PLATFORMS='')
  assert told == {'backend': jax.default_backend(), 'small': {}, 'forgotten': [8], 'real': {}}


def test_a_save_from_the_gpu_is_restored_on_the_cpu(tmp_path):
  """To the bit, and what another step holds is something else."""
  with Checkpoints(tmp_path / 'saves') as saves:
    saves.save(2, at(2), {'source': 2})
  backend, restored, host = told_by('tests.gpu.restored', str(tmp_path / 'saves'), JAX_PLATFORMS='cpu')
  assert backend == 'cpu' and host == {'source': 2}
  assert restored == digests(at(2)) != digests(at(1))
