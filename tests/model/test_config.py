"""Settings that cannot be are refused where they are written, with the field, its value and the way out."""

import pytest

from model.config import (
  AllHeads,
  Attention,
  Compute,
  Gated,
  Learned,
  Linear,
  Llama3,
  MoE,
  MuP,
  Plain,
  RMSNorm,
  Rotary,
  Window,
  YaRN,
)
from model.errors import ConfigError
from tests.model.variants import small


@pytest.mark.parametrize('wrong, message', [
  (lambda: small(width=0), r'Decoder.width = 0'),
  (lambda: small(softcap=-1.0), r'Decoder.softcap = -1.0'),
  (lambda: small(positions=Rotary(fraction=0.3)), r'even whole number'),
  (lambda: Rotary(fraction=1.5), r'Rotary.fraction = 1.5'),
  (lambda: Rotary(theta=0.0), r'Rotary.theta = 0.0'),
  (lambda: Rotary(pattern=()), r'Rotary.pattern'),
  (lambda: small(norm=AllHeads()), r'use RMSNorm'),
  (lambda: Linear(0.0), r'Linear.factor'),
  (lambda: Llama3(low=4.0, high=1.0), r'above low = 4.0'),
  (lambda: YaRN(fast=1.0), r'above slow = 1.0'),
  (lambda: Learned(0), r'Learned.length = 0'),
  (lambda: Window(0), r'Window.size = 0'),
  (lambda: Window(4, ()), r'Window.pattern'),
  (lambda: Attention(8, 3, 16), r'must divide heads = 8'),
  (lambda: Attention(8, 16, 16), r'use one of 1, 2, 4, 8'),
  (lambda: Attention(8, 8, 0), r'Attention.head_size = 0'),
  (lambda: Gated(-4), r'Gated.hidden = -4'),
  (lambda: Plain(0), r'Plain.hidden = 0'),
  (lambda: MoE(4, 5, Gated(8)), r'there are 4 experts'),
  (lambda: MoE(4, 2, Gated(8, bias=True)), r'without biases'),
  (lambda: RMSNorm(eps=0.0), r'RMSNorm.eps'),
  (lambda: MuP(0), r'MuP.base_width = 0'),
])
def test_what_cannot_be_is_refused(wrong, message):
  with pytest.raises(ConfigError, match=message) as error:
    wrong()
  assert error.value.id == 'config.bad-value' and error.value.do


def test_layers_are_written_out_below_sixteen(monkeypatch):
  assert [Compute().scans(n) for n in (1, 15, 16, 80)] == [False, False, True, True]
  assert Compute(layers='scan').scans(2) and not Compute(layers='unroll').scans(80)
  monkeypatch.setattr('jax.default_backend', lambda: 'gpu')
  assert [Compute().scans(n) for n in (48, 49)] == [False, True]


def test_configs_are_values():
  assert small() == small() and hash(small()) == hash(small())
