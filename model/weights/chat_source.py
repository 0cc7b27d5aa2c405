"""A template of ours as the text in Jinja that other programs keep beside a model."""

import json
from collections.abc import Sequence

from model.chat import Gemma, Headed
from model.errors import UserError
from model.jinja_template import Jinja, Names
from model.template import Control, EndOfText, Message, Pieces, Span, Template
from model.tokenizer import Tokenizer

TALKS = (
  [Message('user', ' Hi \n')],
  [Message('user', 'a'), Message('assistant', ' b'), Message('user', '"c" \\ {{ d }} \u00e9\U0001f600')],
  [Message('system', 'Be\nkind. '), Message('user', 'e'), Message('assistant', 'f\n'), Message('user', '')])


def source_of(template: Template, tokenizer: Tokenizer) -> str | None:
  """The template in Jinja, bos included; None if it would not write exactly what we write."""
  sources = [template.source] if isinstance(template, Jinja) else [_written(template, tokenizer)] if _known(template) else []
  for source in (start + source for source in sources for start in ('', '{{- bos_token }}')):
    if _equal(source, template, tokenizer):
      return source
  return None


def _known(template: Template) -> bool:
  return isinstance(template, Headed) and not isinstance(template, Gemma)


def _written(template: Template, tokenizer: Tokenizer) -> str:
  """Headers and ends by role, a loop over the turns, and what an answer begins with."""
  assert isinstance(template, Headed)
  headers = {role: _text(template.header(name), tokenizer) for role, name in template.names.items()}
  ends = {role: _text(template.end(role), tokenizer) for role in template.names}
  between, before = _text(template.between, tokenizer), template.content('')
  content = (f'{_literal(before)} + ' if before else '') + "message['content']"
  content = "(message['content'] | trim)" if template.content(' x ') == 'x' else content
  default = _literal([{'role': 'system', 'content': template.system}])
  turns = f"{default} + messages if messages[0]['role'] != 'system' else messages" if template.system else 'messages'
  return (f'{{%- set headers = {_literal(headers)} %}}{{%- set ends = {_literal(ends)} %}}{{%- set turns = {turns} %}}'
          f'{{%- for message in turns %}}{{{{- (\'\' if loop.first else {_literal(between)}) + headers[message[\'role\']] + '
          f'{content} + ends[message[\'role\']] }}}}{{%- endfor %}}'
          f'{{%- if add_generation_prompt %}}{{{{- {_literal(between + headers["assistant"])} }}}}{{%- endif %}}')


def _literal(value: object) -> str:
  return json.dumps(value, ensure_ascii=False)


def _text(pieces: Pieces, tokenizer: Tokenizer) -> str:
  """What other programs read as these pieces."""
  names = {i: name for name, i in tokenizer.controls.items()}
  return ''.join(piece.name if isinstance(piece, Control) else names[tokenizer.eos] if isinstance(piece, EndOfText) else piece
                 for piece in pieces)


def _equal(source: str, template: Template, tokenizer: Tokenizer) -> bool:
  """Whether it writes each of some conversations as the template does, bos first, whole or as a prompt."""
  return all(_jinja(source, tokenizer, talk, ask) == _ours(template, tokenizer, talk, ask)
             for talk in TALKS for ask in (False, True))


def _ours(template: Template, tokenizer: Tokenizer, talk: Sequence[Message], ask: bool) -> str | None:
  try:
    spans: list[Span] = [*(template.asking if ask else template.spans)(tokenizer, talk)]
  except UserError:
    return None
  text, names = _text(tuple(piece for pieces, _ in spans for piece in pieces), tokenizer), Names.of(tokenizer)
  return text if text.startswith(names.bos) else names.bos + text


def _jinja(source: str, tokenizer: Tokenizer, talk: Sequence[Message], ask: bool) -> str | None:
  try:
    return Jinja(source=source).write(Names.of(tokenizer), talk, ask)
  except UserError:
    return None
