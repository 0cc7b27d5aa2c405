"""The templates of pages, and the style they share. What they are given is escaped; `train.eval.show` writes values."""

import functools
from pathlib import Path

import jinja2

from train.eval import show

HERE = Path(__file__).parent


@functools.cache
def template(name: str, folder: Path = HERE) -> jinja2.Template:
  """The template of that name in a folder; what lies beside this file it may include too."""
  environment = jinja2.Environment(loader=jinja2.FileSystemLoader([folder, HERE]), autoescape=True,
                                   undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
  environment.filters |= {name: getattr(show, name) for name in ('show', 'fixed', 'visible', 'grids', 'settings')}
  return environment.get_template(name)
