"""The chat template in the files of a published model: `tokenizer_config.json`, perhaps `chat_template.jinja`."""

import json
from pathlib import Path
from typing import Any

from model.errors import DataError
from model.jinja_template import Jinja

CONFIG, ALONE = 'tokenizer_config.json', 'chat_template.jinja'


def read_template(folder: Path, name: str = 'default') -> Jinja:
  """The template of that name; its `controls` are the special tokens that it names.

  It is text until it is used, so it can be a field of a run, which then has it word for word.
  Raises: DataError if the folder has none, or its file cannot be read.
  """
  config = _config(folder / CONFIG)
  source = _text(folder / ALONE) if name == 'default' and (folder / ALONE).exists() else _named(config, name, folder / CONFIG)
  return Jinja(source=source, controls=tuple(sorted(token for token in _special(config) if token in source)))


def _named(config: dict[str, Any], name: str, path: Path) -> str:
  """The template of that name: a file has one of no name, or a list of several with names."""
  held = config.get('chat_template')
  several = held if isinstance(held, list) else [{'name': 'default', 'template': held}]
  known = {each['name']: each['template'] for each in several
           if isinstance(each, dict) and isinstance(each.get('name'), str) and isinstance(each.get('template'), str)}
  if name not in known:
    has = f', only {", ".join(known)}' if known else ''
    raise DataError('chat.no-template', f'{path}: field \'chat_template\'', f'it has none of the name {name!r}{has}',
                    'use a template of ours: ChatML, Llama3, Gemma, Plain')
  return known[name]


def _special(config: dict[str, Any]) -> set[str]:
  held = config.get('added_tokens_decoder')
  entries = held.values() if isinstance(held, dict) else ()
  return {each['content'] for each in entries
          if isinstance(each, dict) and each.get('special') and isinstance(each.get('content'), str)}


def _config(path: Path) -> dict[str, Any]:
  try:
    value = json.loads(_text(path))
  except ValueError as error:
    raise DataError('chat.bad-config', str(path), f'it is no JSON: {error}', 'download it again') from None
  if not isinstance(value, dict):
    raise DataError('chat.bad-config', str(path), 'it is no JSON object', 'download it again')
  return value


def _text(path: Path) -> str:
  try:
    return path.read_text(encoding='utf-8')
  except (OSError, UnicodeDecodeError) as error:
    raise DataError('data.missing-file', str(path), getattr(error, 'strerror', None) or str(error),
                    'give the folder of a published model') from None
