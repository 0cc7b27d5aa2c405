"""How many proposals a pass judges: by what became of those before, and by what a position costs."""

import jax.numpy as jnp
import pytest

from model.ahead import Record, best, price, sizes


def test_as_many_are_judged_as_pay():
  """By the record and the price: of one row, and of a batch whose rows are of several minds."""
  def chosen(chances, proposes=None):
    chance_B = jnp.array(chances)
    going_B, proposes_B = jnp.ones(len(chances), bool), jnp.array(proposes or [True] * len(chances))
    return sizes(7)[int(best(Record(chance_B, jnp.ones(len(chances))), proposes_B, going_B, sizes(7)))]

  assert sizes(7) == (0, 3, 7) and sizes(1) == (0, 1)
  assert 0 < price(1) < price(8) < 1
  assert [chosen([chance]) for chance in (0.02, 0.5, 0.95)] == [0, 3, 7]
  assert chosen([0.95], [False]) == 0
  assert chosen([0.95] + [0.1] * 7) == 0 and chosen([0.95] * 7 + [0.1]) == 7      # for one row the others would pay
  assert chosen([0.95] + [0.5] * 7, [True] + [False] * 7) == 0


def test_a_record_follows_what_becomes_of_proposals_and_forgets_it():
  def after(record: Record, kept: int, proposed: int, rounds: int) -> Record:
    for _ in range(rounds):
      record = record.noted(jnp.array([proposed]), jnp.array([kept]))
    return record

  def chance(record: Record) -> float:
    return float(record.kept_B[0] / record.judged_B[0])

  first = Record.begin(1)
  refused, kept = after(first, 0, 3, 10), after(first, 7, 7, 10)
  assert chance(first) == 0.5 and chance(refused) < 0.15 and chance(kept) > 0.97
  assert chance(after(first, 2, 3, 99)) == pytest.approx(21 / 32)          # two of three judged, and one of the first two
  assert chance(after(refused, 0, 0, 30)) == pytest.approx(0.5, abs=0.1)
  assert chance(after(kept, 0, 3, 9)) < 0.8
