"""A confusion matrix as inline SVG, in the page's colours: the darker a cell, the larger its share of its row."""

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from train.eval.show import visible

SIDE = 44          # of a cell, in units of the drawing
LEGIBLE = 20       # classes; above, cells bear no numbers and the sides no names
LONGEST = 18       # characters of a name
LETTER = 8         # a character's width, at most

DRAWING = Markup('<svg role="img" aria-label="confusion matrix: truth by row, answer by column" viewBox="0 0 {} {}" '
                 'style="max-width: {}px">{}</svg>')
BOX = Markup('<rect x="{}" y="{}" width="{}" height="{}" rx="{}" fill="var({})" fill-opacity="{}"><title>{}</title></rect>')
TEXT = Markup('<text x="{}" y="{}" text-anchor="{}" font-size="13" fill="var({})">{}</text>')
TURNED = Markup('<g transform="rotate({} {} {})">{}</g>')


def heat(confusion: Sequence[Sequence[int]], labels: Sequence[str]) -> Markup:
  """An `<svg>` element: a row for each true class, a column for each that was said. Pointing at a cell tells what it is."""
  names, few = [plain(label) for label in labels], len(labels) <= LEGIBLE
  left = LETTER * max(len(short(name)) for name in names) + 12 if few else 0
  top = 0 if not few else 30 if upright(names) else left
  side = SIDE if few else max(4, SIDE * LEGIBLE // len(labels))
  parts = [part for i, row in enumerate(confusion) for part in _cells(row, i, left, top, side, names)]
  if few:
    turn = 0 if upright(names) else -60
    parts += [part for i, name in enumerate(names) for part in _names(name, left, top, i * side + side / 2, turn)]
  width, height = left + side * len(labels) + (0 if not few or upright(names) else left // 2), top + side * len(labels)
  return DRAWING.format(width, height, width, Markup('').join(parts))


def plain(label: str) -> str:
  """A name with nothing hidden in it, and no tags: an element of HTML would end the drawing."""
  return visible(label).striptags()


def short(name: str) -> str:
  """A name as there is room for it."""
  return name if len(name) <= LONGEST else f'{name[:LONGEST - 1]}…'


def _cells(row: Sequence[int], i: int, left: int, top: int, side: int, names: Sequence[str]) -> Iterator[Markup]:
  few = len(names) <= LEGIBLE
  for j, count in enumerate(row):
    share, x, y = count / max(sum(row), 1), left + j * side, top + i * side
    yield BOX.format(x + 1, y + 1, side - 2, side - 2, 4 if few else 1, '--sea' if i == j else '--ember',
                     f'{0.06 + 0.94 * share:.3f}', f'{names[i]} said to be {names[j]}: {count} of {sum(row)}')
    if few and count:
      yield TEXT.format(x + side / 2, y + side / 2 + 4.5, 'middle', '--ink' if share < 0.6 else '--paper', count)


def upright(names: Sequence[str]) -> bool:
  """Whether there is room for each name above its column; else they are turned."""
  return LETTER * max(map(len, names)) <= SIDE


def _names(name: str, left: int, top: int, middle: float, turn: int) -> Iterator[Markup]:
  yield TEXT.format(left - 8, top + middle + 4.5, 'end', '--quiet', short(name))
  x, y = left + middle + (4.5 if turn else 0), top - 10
  column = TEXT.format(x, y, 'start' if turn else 'middle', '--quiet', short(name))
  yield TURNED.format(turn, x, y, column) if turn else column
