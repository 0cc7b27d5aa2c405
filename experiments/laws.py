"""Fits over the trials of a sweep: the scaling law of loss over compute, and the best learning rate."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from model.errors import DataError


class PowerLaw(NamedTuple):
  """loss = floor + scale * compute ** -exponent, nats and FLOPs; `spread` is the root mean square of log(loss / fit)."""

  floor: float
  scale: float
  exponent: float
  spread: float

  @property
  def unit(self) -> float:
    """The compute at which the loss is 1 above its floor: loss = floor + (unit / compute) ** exponent."""
    return float(np.exp(min(np.log(self.scale) / self.exponent, 700.0)))

  def __call__(self, compute):
    return self.floor + self.scale * np.asarray(compute, np.float64) ** -self.exponent


def fit_power_law(compute: Sequence[float], loss: Sequence[float]) -> PowerLaw:
  """The power law with a floor through points of compute (FLOPs) and loss (nats), by robust least squares in log loss.

  Hoffmann et al. 2022, appendix D, for one variable: Huber's loss on log residuals, the best of several starts. The
  floor is between 0 and the lowest loss, the exponent between 0.001 and 2.

  Raises: DataError for fewer than three different amounts of compute, and for numbers that are not above zero.
  """
  c, l = np.asarray(compute, np.float64), np.asarray(loss, np.float64)
  if len(set(c.tolist())) < 3 or not (np.isfinite(c * l).all() and (c > 0).all() and (l > 0).all()):
    raise DataError('sweep.too-few-points', f'{len(set(c.tolist()))} amounts of compute',
                    'a curve of three numbers needs three points, with finite losses above 0', 'run more sizes')
  middle = np.exp(np.log(c).mean())          # the scale is fitted there: at 1 FLOP it would correlate with the exponent
  floor, at_middle, exponent = _fitted(c / middle, l)
  scale = float(np.exp(at_middle + exponent * np.log(middle)))
  law = PowerLaw(float(floor), scale, float(exponent), 0.0)
  return law._replace(spread=float(np.sqrt(np.mean((np.log(law(c)) - np.log(l)) ** 2))))


def _fitted(c: np.ndarray, l: np.ndarray) -> np.ndarray:
  """f64[3]: floor, log of scale, and exponent of the best fit to l = floor + scale * c ** -exponent."""
  from scipy.optimize import least_squares  # late: its import takes 0.3 s, and only a finished sweep needs it

  def residuals(x):
    return np.log(x[0] + np.exp(x[1]) * c ** -x[2]) - np.log(l)

  low, high = (0.0, np.log(l.min()) - 20, 1e-3), (l.min() * (1 - 1e-9), np.log(l.max()) + 20, 2.0)
  starts = [(share * l.min(), np.log(np.median(l) - share * l.min()), exponent)
            for share in (0.1, 0.5, 0.9) for exponent in (0.05, 0.2, 0.5)]
  fits = [least_squares(residuals, start, bounds=(low, high), loss='huber', f_scale=0.01, xtol=1e-14, ftol=1e-14,
                        gtol=1e-14, x_scale='jac', max_nfev=2000) for start in starts]
  return min(fits, key=lambda fit: fit.cost).x


def best_rate(rates: Sequence[float], losses: Sequence[float]) -> float:
  """The rate of lowest loss: the vertex of a parabola in log rate through the lowest point and its neighbours.

  The lowest point itself, where it is at an end or a neighbour's loss is not finite. Rates are in ascending order.
  """
  x, y = np.log(np.asarray(rates, np.float64)), np.asarray(losses, np.float64)
  low = int(np.nanargmin(np.where(np.isfinite(y), y, np.nan)))
  near = slice(low - 1, low + 2)
  if not 0 < low < len(x) - 1 or not np.isfinite(y[near]).all():
    return float(np.exp(x[low]))
  curve, slope, _ = np.polyfit(x[near] - x[low], y[near], 2)
  return float(np.exp(x[low] - slope / (2 * curve))) if curve > 0 else float(np.exp(x[low]))
