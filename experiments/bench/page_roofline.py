"""The roofline (Williams et al. 2009) as inline SVG: what a kernel reached, below what its traffic and the card allow."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from markupsafe import Markup

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 1000, 430, 62, 24, 16, 46
DRAWING = Markup('<svg role="img" aria-label="roofline: TFLOP/s over FLOPs a byte" viewBox="0 0 {} {}">{}</svg>')
LINE = Markup('<path d="{}" fill="none" stroke="var({})" stroke-width="{}"/>')
TEXT = Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}" font-size="13" fill="var({})">{}</text>')
DOT = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="5" fill="{}" stroke="var({})" stroke-width="1.6" fill-opacity="{}">'
             '<title>{}: {:.0f} TFLOP/s at {:,.0f} FLOPs a byte</title></circle>')


class Point(NamedTuple):
  """A kernel: FLOPs for each byte that must move, and TFLOP/s."""

  name: str
  intensity: float
  tflops: float
  ours: bool
  backward: bool


class Frame(NamedTuple):
  """Both axes, powers of two from `low` to `high`."""

  x: tuple[int, int]
  y: tuple[int, int]

  def at(self, intensity: float, tflops: float) -> tuple[float, float]:
    """Where a point lies in the drawing."""
    across = (math.log2(intensity) - self.x[0]) / (self.x[1] - self.x[0])
    up = (math.log2(tflops) - self.y[0]) / (self.y[1] - self.y[0])
    return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)


def roofline(points: Sequence[Point], product: float, copy: float) -> Markup:
  """The drawing, under the ceilings of a product in TFLOP/s and of a copy in GB/s; pointing at a dot tells what it is."""
  ridge, drawn = 1e3 * product / copy, [point for point in points if point.tflops > 0]
  lowest = min([*(point.tflops for point in drawn), product / 4])
  x = [ridge / 8, ridge * 4, *(point.intensity for point in drawn)]
  frame = Frame((math.floor(math.log2(min(x))), math.ceil(math.log2(max(x)))),
                (math.floor(math.log2(lowest)), math.ceil(math.log2(max([product, *(point.tflops for point in drawn)])) + 0.1)))
  parts = [*_axes(frame), *_roof(frame, product, copy, ridge),
           *(_dot(frame, point) for point in sorted(drawn, key=lambda point: point.ours))]
  return DRAWING.format(WIDTH, HEIGHT, Markup('').join(parts))


def _axes(frame: Frame) -> Iterator[Markup]:
  for power in range(frame.y[0], frame.y[1] + 1):
    x, y = frame.at(2.0 ** frame.x[0], 2.0 ** power)
    yield LINE.format(f'M{x:.1f} {y:.1f}H{WIDTH - RIGHT}', '--line', 1)
    yield TEXT.format(x - 8, y + 4.5, 'end', '--quiet', f'{2.0 ** power:,g}')
  for power in range(frame.x[0], frame.x[1] + 1):
    x, y = frame.at(2.0 ** power, 2.0 ** frame.y[0])
    yield TEXT.format(x, y + 19, 'middle', '--quiet', f'{2.0 ** power:,g}')
  yield TEXT.format(WIDTH - RIGHT, HEIGHT - 6, 'end', '--quiet', 'FLOPs for each byte that must move')
  yield TEXT.format(LEFT + 6, TOP + 2, 'start', '--quiet', 'TFLOP/s')


def _roof(frame: Frame, product: float, copy: float, ridge: float) -> Iterator[Markup]:
  """Up along the copy from where it enters the drawing, then flat along the product."""
  begin = max(2.0 ** frame.x[0], 2.0 ** frame.y[0] * 1e3 / copy)
  (x0, y0), (x1, y1) = frame.at(begin, begin * copy / 1e3), frame.at(ridge, product)
  x2 = frame.at(2.0 ** frame.x[1], product)[0]
  yield LINE.format(f'M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}H{x2:.1f}', '--ink', 2)
  yield TEXT.format(x2, y1 - 8, 'end', '--ink', f'a product of matrices: {product:,.0f} TFLOP/s')
  yield TEXT.format((x0 + x1) / 2 - 10, (y0 + y1) / 2 - 4, 'end', '--ink', f'a copy: {copy:,.0f} GB/s')


def _dot(frame: Frame, point: Point) -> Markup:
  colour = '--ember' if point.ours else '--sea'
  x, y = frame.at(point.intensity, point.tflops)
  return DOT.format(x, y, f'var({colour})', colour, 0.85 if point.backward else 0.0, point.name, point.tflops, point.intensity)
