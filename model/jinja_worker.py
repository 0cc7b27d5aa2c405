"""The child process in which a chat template runs: a line of JSON in, a line out, until its input ends.

    python -I model/jinja_worker.py

A template is a stranger's program. Jinja's immutable sandbox keeps it from Python's insides, but not from endless work or
from all of the memory; that the system does, to this process alone. The first line brings the template and its limits, each
other one a conversation to be written. The answer is `{"text"}` or `{"kind", "said", "line"}`.

It imports nothing of the project's, so that it begins in a tenth of a second and holds nothing worth having.
"""

import datetime
import json
import math
import resource
import sys
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError

SOURCE = '<template>'                    # the file name of the code that Jinja makes of a template
REHEARSAL = '{{ "\\n" | pprint }}{{ strftime_now("%d %b %Y") }}{{ messages[0].content | urlencode | tojson }}{{ nothing }}'
HEAD_ROOM = 64 << 20                     # bytes of addresses that the allocator and Jinja's compiler take beside the template's


class Refused(Exception):
  """What a template says by `raise_exception`."""


class TooMuch(Exception):
  """More output than was allowed."""


class Named(jinja2.Undefined):
  """A name that nobody gave: it may be tested for, as templates do, but not be written, for that would be nothing, silently."""

  __str__ = jinja2.Undefined._fail_with_undefined_error


class Generation(Extension):
  """`{% generation %}`, with which some templates mark answers. What is learnt is found without it."""

  tags = {'generation'}                                                                              # noqa: RUF012

  def parse(self, parser):
    line = next(parser.stream).lineno
    return nodes.Scope(parser.parse_statements(('name:endgeneration',), drop_needle=True), lineno=line)


class Program:
  """A template, compiled when it is first asked for, and its limits: seconds of CPU, characters of output."""

  def __init__(self, source: str, date: str, seconds: int, longest: int, memory: int):
    self.source, self.seconds, self.longest, self.memory = source, seconds, longest, memory
    self.environment = environment(datetime.date.fromisoformat(date))
    self.template: jinja2.Template | None = None

  def answer(self, request: dict[str, Any]) -> dict[str, Any]:
    """What is to be told the parent of this request."""
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used) + self.seconds, resource.RLIM_INFINITY))
    try:
      self.template = self.template or self.environment.from_string(self.source)
      return {'text': self.write(self.template, request)}
    except Exception as error:
      return told(error)

  def write(self, template: jinja2.Template, request: dict[str, Any]) -> str:
    messages = [{'role': role, 'content': content} for role, content in request['messages']]
    left = self.longest + sum(len(message['content']) for message in messages)
    parts = []
    for part in template.generate(messages=messages, add_generation_prompt=request['ask'], tools=None, documents=None,
                                  **request['variables']):
      left -= len(part)
      if left < 0:
        raise TooMuch(f'it writes more than {self.longest:,} characters of its own')
      parts.append(part)
    return ''.join(parts)


def environment(today: datetime.date) -> jinja2.Environment:
  """Jinja as those who publish models set it up, without what is drawn at random."""
  made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, undefined=Named,
                                       extensions=[Generation, 'jinja2.ext.loopcontrols'])
  made.globals |= {'raise_exception': refuse, 'strftime_now': today.strftime}
  made.filters['tojson'] = tojson
  del made.globals['lipsum'], made.filters['random']
  return made


def refuse(message: Any = '') -> None:
  raise Refused(str(message))


def tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None,
           sort_keys: bool = False) -> str:
  """Plain JSON: Jinja's own filter writes it for HTML."""
  return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


KINDS: dict[str, tuple[type[Exception], ...]] = {
  'refuses': (Refused,), 'syntax': (jinja2.TemplateSyntaxError,), 'forbidden': (SecurityError,),
  'undefined': (jinja2.UndefinedError,), 'limit': (TooMuch, MemoryError, RecursionError, OverflowError),
}


def told(error: Exception) -> dict[str, Any]:
  """The kind of an error, what it says, and the line of the template where it happened."""
  kind = next((kind for kind, types in KINDS.items() if isinstance(error, types)), 'fails')
  said = 'it asks for more memory than it is given' if isinstance(error, MemoryError) else str(error) or type(error).__name__
  return {'kind': kind, 'said': said[:400], 'line': line_of(error)}


def line_of(error: Exception) -> int | None:
  if isinstance(error, jinja2.TemplateSyntaxError):
    return error.lineno
  line, trace = None, error.__traceback__
  while trace is not None:
    line = trace.tb_lineno if trace.tb_frame.f_code.co_filename == SOURCE else line
    trace = trace.tb_next
  return line


def rehearse(first: dict[str, Any]) -> None:
  """A template that uses this and that and then fails: Python imports some of its library late, and could not any more."""
  Program(**{**first, 'source': REHEARSAL}).answer({'messages': [['user', '\u00e9']], 'ask': False, 'variables': {}})


def confine(memory: int) -> None:
  """So many bytes of memory more than are used by now, and no files: not to write, nor to open."""
  with open('/proc/self/statm') as statm:
    used = int(statm.read().split()[0]) * resource.getpagesize()
  for limit, value in ((resource.RLIMIT_AS, used + memory + HEAD_ROOM), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0),
                       (resource.RLIMIT_NOFILE, 3)):
    resource.setrlimit(limit, (value, value))


def say(answer: dict[str, Any]) -> None:
  sys.stdout.write(json.dumps(answer) + '\n')
  sys.stdout.flush()


def main() -> None:
  first = json.loads(sys.stdin.readline())
  program = Program(**first)
  rehearse(first)
  confine(program.memory)
  say({'ready': True})
  for line in sys.stdin:
    say(program.answer(json.loads(line)))


if __name__ == '__main__':
  main()
