"""Processes of a job: what a collective raises is told as another process's death where it is that, and nowhere else."""

import jax
import pytest

from model.errors import PeerError
from train.saving.peers import together

GLOO = 'FAILED_PRECONDITION: Gloo all-reduce failed: [external/gloo/transport/tcp/pair.cc:547] Connection closed by peer'


@pytest.mark.parametrize('text, processes, told', [
    (GLOO, 2, PeerError),
    (GLOO, 1, jax.errors.JaxRuntimeError),                             # one process has no others
    ('RESOURCE_EXHAUSTED: out of memory', 2, jax.errors.JaxRuntimeError)])
def test_a_dead_process_is_told_by_the_others_and_nothing_else_is(text, processes, told, monkeypatch):
  monkeypatch.setattr(jax, 'process_count', lambda: processes)
  with pytest.raises(told, match=r'Gloo|memory'), together():
    raise jax.errors.JaxRuntimeError(text)
