"""The templates of this folder's pages. What they are given is escaped; values are written as `train.eval.show` writes them."""

import functools
from pathlib import Path

import jinja2

from train.eval import show


@functools.cache
def template(name: str) -> jinja2.Template:
  """The template of that name."""
  environment = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True,
                                   undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
  environment.filters |= {name: getattr(show, name) for name in ('show', 'fixed', 'visible', 'grids', 'settings')}
  return environment.get_template(name)
