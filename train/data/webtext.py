"""The text of an HTML page, in time that is linear in its length whatever the page holds."""

import re
from html import unescape

BREAKS = frozenset(re.findall(r'\w+', '''
  address article aside blockquote br dd div dl dt fieldset figcaption figure footer form h1 h2 h3 h4 h5 h6 header hr li
  main nav ol option p pre section table td th title tr ul'''))
SILENT = frozenset(re.findall(r'\w+', '''
  head script style noscript template svg math iframe object textarea select button nav footer'''))

# A tag runs to the first > outside its quotes. The quantifiers are possessive: no page can make the pattern back up.
TAG = re.compile(r'''<(/?)([A-Za-z][A-Za-z0-9:-]*+)((?:[^<>"']++|"[^"]*+"|'[^']*+')*+)>|<[!?][^<>]*+>''')
COMMENT = ('<!--', '-->')
RAW = ('script', 'style')


def html_text(page: str) -> str:
  """What a reader sees of the page: one line for each block, an empty one between blocks, entities as characters."""
  page = _without(page, *COMMENT)
  for name in RAW:
    page = _without(page, f'<{name}', f'</{name}')
  parts: list[str] = []
  silent, depth, end = '', 0, 0
  for match in TAG.finditer(page):
    if not silent:
      parts.append(page[end:match.start()])
    end = match.end()
    name, closing = (match[2] or '').lower(), bool(match[1])
    if silent:
      depth += 0 if name != silent or match[3].endswith('/') else -1 if closing else 1
      silent = silent if depth else ''
    elif name in SILENT and not closing and not match[3].endswith('/'):
      silent, depth = name, 1
    elif name in BREAKS:
      parts.append('\n')
  if not silent:
    parts.append(page[end:])
  lines = (' '.join(unescape(line).split()) for line in ''.join(parts).split('\n'))
  return '\n\n'.join(line for line in lines if line)


def _without(page: str, opening: str, closing: str) -> str:
  """The page without what stands between the marks; one that is never closed takes the rest, as in a browser."""
  folded, parts, start = page.lower(), [], 0
  if len(folded) != len(page):      # a few capitals grow when folded, and places would shift
    folded = page
  while (found := folded.find(opening, start)) >= 0:
    parts.append(page[start:found])
    end = folded.find(closing, found + len(opening))
    if end < 0:
      return ''.join(parts)
    start = end + len(closing)
    if closing.startswith('</'):    # the rest of the end tag
      start = folded.find('>', start) + 1 or len(page)
  return ''.join([*parts, page[start:]])
