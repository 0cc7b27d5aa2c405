"""Objectives: what is scored on what, and that the number is the cross-entropy that the words say."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from model import decoder
from model.config import Attention, Decoder, Gated, MoE
from model.errors import ConfigError
from model.sharding import unbox
from train.artifact import digest
from train.objectives import MaskedLM, NextToken, shift
from train.step import accumulate, gradient

VOCAB = 32
CONFIG = Decoder(VOCAB, 16, 2, Attention(2, 1, 8), Gated(24))


def model_of(config=CONFIG):
  model = decoder.build(config)
  return model, unbox(jax.jit(model.init)(jax.random.key(0)))


def rows(lengths, width=9, seed=0):
  """Rows of tokens in which documents of these lengths follow one another, then padding."""
  rng = np.random.default_rng(seed)
  segments = np.zeros((len(lengths), width), np.int32)
  for row, parts in zip(segments, lengths):
    row[:sum(parts)] = np.repeat(np.arange(1, len(parts) + 1), parts)
  return {'tokens': jnp.array(rng.integers(0, VOCAB, segments.shape), jnp.int32), 'segments': jnp.array(segments)}


def test_shift_scores_each_token_on_the_one_before_it_and_no_document_on_another():
  batch = {'tokens': jnp.array([[5, 6, 7, 8, 9, 0]]), 'segments': jnp.array([[1, 1, 1, 2, 2, 0]])}
  row = shift(batch)
  assert row.inputs_BL.tolist() == [[5, 6, 7, 8, 9]]
  assert row.targets_BL.tolist() == [[6, 7, 8, 9, 0]]
  assert row.weights_BL.tolist() == [[1, 1, 0, 1, 0]]
  masked = shift(batch | {'mask': jnp.array([[1, 0, 1, 1, 1, 1]])})
  assert masked.weights_BL.tolist() == [[0, 1, 0, 1, 0]]


def test_next_token_is_the_cross_entropy_of_dense_logits_with_its_z_loss():
  model, params = model_of()
  batch = rows([[9], [4, 3], [1, 2]])
  loss = NextToken(z_loss=0.01)(model)(params, {}, batch, jax.random.key(0))
  row = shift(batch)
  logits_BLV = model.logits(params, model.hidden(params, row.inputs_BL, row.segments_BL).x_BLD)
  log_z_BL = jax.nn.logsumexp(logits_BLV, -1)
  nll_BL = log_z_BL - jnp.take_along_axis(logits_BLV, row.targets_BL[..., None], -1)[..., 0]
  expected = (row.weights_BL * (nll_BL + 0.01 * log_z_BL**2)).sum()
  np.testing.assert_allclose(loss.objective.total, expected, rtol=1e-5)
  assert float(loss.objective.weight) == 8 + 3 + 2 + 1
  np.testing.assert_allclose(loss.metrics['nll'].total, (row.weights_BL * nll_BL).sum(), rtol=1e-5)
  hits = (row.weights_BL * (logits_BLV.argmax(-1) == row.targets_BL)).sum()
  assert float(loss.metrics['accuracy'].total) == float(hits)


def test_smoothed_labels_change_the_loss_and_not_what_is_measured():
  """The objective is optax's cross-entropy of smoothed labels; `nll`, which held-out rows are scored by, that of the token."""
  model, params = model_of()
  batch = rows([[9], [4, 3], [1, 2]])
  plain, smooth = (NextToken(smoothing=share)(model)(params, {}, batch, jax.random.key(0)) for share in (0.0, 0.1))
  row = shift(batch)
  logits_BLV = model.logits(params, model.hidden(params, row.inputs_BL, row.segments_BL).x_BLD)
  labels_BLV = optax.smooth_labels(jax.nn.one_hot(row.targets_BL, VOCAB), 0.1)
  expected = (row.weights_BL * optax.softmax_cross_entropy(logits_BLV, labels_BLV)).sum()
  np.testing.assert_allclose(smooth.objective.total, expected, rtol=1e-5)
  assert float(smooth.metrics['nll'].total) == float(plain.metrics['nll'].total) == float(plain.objective.total)
  with pytest.raises(ConfigError, match='smoothing = 1'):
    NextToken(smoothing=1.0)
  assert digest(NextToken(smoothing=0.0)) == digest(NextToken()) != digest(NextToken(smoothing=0.1))


def test_a_packed_row_has_the_loss_and_gradient_of_its_documents_alone():
  model, params = model_of()
  packed = rows([[5, 4]])
  apart = {'tokens': jnp.stack([packed['tokens'][0], jnp.roll(packed['tokens'][0], -5)]),
           'segments': jnp.array([[1] * 5 + [0] * 4, [1] * 4 + [0] * 5])}
  grad_fn, key = jax.jit(gradient(NextToken()(model))), jax.random.key(0)
  one, two = grad_fn(params, {}, packed, key), grad_fn(params, {}, apart, key)
  np.testing.assert_allclose(one[1].objective.total, two[1].objective.total, rtol=1e-6)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), one[0], two[0])


def test_a_row_without_targets_weighs_nothing_and_hurts_nothing():
  model, params = model_of()
  grads, loss = gradient(NextToken(1e-4)(model))(params, {}, rows([[], [1], [1, 1]]), jax.random.key(0))
  assert float(loss.objective.total) == 0 and float(loss.objective.weight) == 0
  assert all(float(jnp.abs(leaf).max()) == 0 for leaf in jax.tree.leaves(grads))


def test_experts_add_their_penalties_by_scored_tokens_so_that_parts_add_up():
  config = replace(CONFIG, mlp=MoE(4, 2, Gated(8)))
  model, params = model_of(config)
  batch, key = rows([[9], [4, 3], [2], [9]]), jax.random.key(0)
  whole = jax.jit(gradient(NextToken()(model)))(params, {}, batch, key)
  parts = jax.jit(accumulate(gradient(NextToken()(model)), 2))(params, {}, batch, key)
  np.testing.assert_allclose(parts[1].objective.total, whole[1].objective.total, rtol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), parts[0], whole[0])
  metrics = whole[1].metrics
  penalties = sum(float(metrics[name].total) for name in ('balance', 'router_z'))
  assert penalties > 0
  assert float(whole[1].objective.total) == pytest.approx(float(metrics['nll'].total) + penalties, rel=1e-5)


def test_masked_lm_scores_the_chosen_positions_from_both_sides():
  model, params = model_of(replace(CONFIG, causal=False))
  batch = rows([[8], [8]], width=8) | {'mask': jnp.zeros((2, 8)).at[:, 2].set(1)}
  batch['targets'] = batch['tokens']
  loss_fn = MaskedLM()(model)
  before = loss_fn(params, {}, batch, jax.random.key(0)).objective
  assert float(before.weight) == 2
  later = batch | {'tokens': batch['tokens'].at[:, 6].add(1) % VOCAB}
  assert float(loss_fn(params, {}, later, jax.random.key(0)).objective.total) != float(before.total)


def test_masked_lm_refuses_a_model_that_reads_one_way():
  with pytest.raises(ConfigError, match=r'causal'):
    MaskedLM()(model_of()[0])
