"""A judge behind a URL: any server that speaks OpenAI's chat-completions protocol.

    Endpoint('http://localhost:8000/v1', 'some-model')                       a server of one's own, without a key
    Endpoint('https://.../v1', 'some-model', key='SOME_API_KEY')             the key is in that variable of the environment

The key itself is in no config, file or message. A request that fails for a reason that may pass (no connection, no answer in
time, 408, 409, 425, 429, 5xx) is tried again, after twice the wait each time, or after what the server asks for; any other
refusal ends the launch and says why. Redirects are not followed: the key would go with them.

A server may answer the same request differently tomorrow. What it said is kept in the artifact that asked.
"""

import json
import math
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

import numpy as np

from align import threads
from align.conversations import Messages
from align.judge import Judge, Said, normalised
from model.errors import ConfigError, DataError, PeerError, UserError
from train.artifact import Store, how

LARGEST = 16 << 20                   # bytes of an answer that are read
LONGEST_WAIT = 60.0                  # seconds between two tries, whatever the server asks for
PASSING = (408, 409, 425, 429)       # statuses that may be others next time, beside 5xx
LEAST = -1e4                         # nats: a log-prob that some servers write as minus infinity
TOP = 20                             # options are looked for among so many likeliest tokens: the protocol's most

Json = dict[str, Any]


@dataclass(frozen=True)
class Endpoint(Judge):
  """The model of that name behind `<url>/chat/completions`, asked for at most `tokens` tokens.

  `key` names a variable of the environment; None sends no key. Options are judged by the first token that the server would
  say, so they must differ in it: 'A' and 'B' do, '(A)' and '(B)' do not.
  """

  url: str
  model: str
  key: str | None = how(None)
  tokens: int = 256
  temperature: float = 1.0
  seconds: float = how(60.0)           # to wait for an answer
  tries: int = how(5)
  wait: float = how(1.0)               # seconds before the second try
  at_once: int = how(4)

  def __post_init__(self):
    parts = urllib.parse.urlsplit(self.url)
    if parts.scheme not in ('http', 'https') or not parts.hostname or parts.query or parts.fragment or '@' in parts.netloc:
      raise ConfigError('endpoint.url', f'url = {self.url!r}', 'it is no http or https address without a user and a query',
                        "give what stands before /chat/completions: 'http://localhost:8000/v1'")
    if min(self.tokens, self.tries, self.at_once) < 1 or self.temperature < 0 or self.wait < 0 or not self.seconds > 0:
      raise ConfigError('config.out-of-range', f'{self}', 'counts are 1 or more, times and temperature not below 0',
                        'mend the one that is not')

  def open(self, store: Store) -> 'Client':
    """Raises: ConfigError if the variable that should hold the key does not."""
    if self.key is not None and not os.environ.get(self.key):
      raise ConfigError('endpoint.no-key', f'{self.url}: key = {self.key!r}', 'the environment has no such variable, or it is '
                        'empty', f'export {self.key}=..., or set key to None for a server that wants none')
    return Client(self, os.environ[self.key] if self.key else '')


class Client:
  """An `Opened` behind a URL."""

  def __init__(self, endpoint: Endpoint, secret: str):
    self.of, self._secret = endpoint, secret
    self.url = f'{endpoint.url.rstrip("/")}/chat/completions'
    self._opener = urllib.request.build_opener(_Stay)

  def write(self, talks: Sequence[Messages], seeds: Sequence[int]) -> list[Said]:
    """As `Opened.write`. Raises: UserErrors if the server cannot be reached, refuses, or gives no text."""
    def one(item: tuple[Messages, int]) -> Said:
      choice = self._choice(item[0], max_tokens=self.of.tokens, temperature=self.of.temperature, seed=item[1])
      message = choice.get('message')
      text = message.get('content') if isinstance(message, dict) else None
      if not isinstance(text, str):
        raise self._odd(f'no text in {json.dumps(choice)[:200]}')
      return Said(text.strip(), choice.get('finish_reason') == 'length')

    return threads.each(one, list(zip(talks, seeds)), self.of.at_once, 'endpoint')

  def weigh(self, talks: Sequence[Messages], options: Sequence[str]) -> np.ndarray:
    """As `Opened.weigh`. A token with a blank before it is the same option as without: their probabilities are added.

    An option that is not among the likeliest tokens gets the log-prob of the last of these, an upper bound. Raises: UserErrors
    as `write` does, or if the server gives no log-probs, or none of the options.
    """
    def one(talk: Messages) -> list[float]:
      choice = self._choice(talk, max_tokens=1, temperature=1.0, logprobs=True, top_logprobs=TOP)
      return _options(self._top(choice), options, self)

    found = threads.each(one, list(talks), self.of.at_once, 'endpoint')
    return normalised(np.array(found, np.float64).reshape(len(talks), len(options)))

  def _choice(self, talk: Messages, **settings: Any) -> Json:
    """The first choice of the server's answer."""
    answer = self._asked({'model': self.of.model, 'messages': [message._asdict() for message in talk], **settings})
    choices = answer.get('choices')
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
      raise self._odd(f'no choices in {json.dumps(answer)[:200]}')
    return choices[0]

  def _top(self, choice: Json) -> dict[str, float]:
    """The likeliest first tokens with their log-probs."""
    try:
      top = {str(each['token']): max(float(each['logprob']), LEAST) for each in
             choice['logprobs']['content'][0]['top_logprobs']}
    except (KeyError, IndexError, TypeError, ValueError):
      top = {}
    if not top or any(map(math.isnan, top.values())):
      raise DataError('endpoint.no-logprobs', f'{self.url}, model {self.of.model}', 'its answer has no top_logprobs, of which '
                      'labels are made', 'use a server and a model that give log-probs')
    return top

  def _asked(self, body: Json) -> Json:
    """The server's answer, after up to `tries` tries."""
    for attempt in range(self.of.tries):
      try:
        return self._sent(body)
      except _Passing as failure:
        if attempt + 1 == self.of.tries:
          raise PeerError('endpoint.unreachable', self.url, f'{failure.why}, and so {self.of.tries} times',
                          'see whether the server is up and not overloaded; raise tries, wait or seconds') from None
        time.sleep(min(LONGEST_WAIT, max(failure.after, self.of.wait * 2**attempt)))
    raise AssertionError('there is at least one try')

  def _sent(self, body: Json) -> Json:
    """One try. Raises: _Passing where another one may do better."""
    headers = {'Content-Type': 'application/json'} | ({'Authorization': f'Bearer {self._secret}'} if self._secret else {})
    request = urllib.request.Request(self.url, json.dumps(body).encode(), headers)
    try:
      with self._opener.open(request, timeout=self.of.seconds) as response:
        data = response.read(LARGEST + 1)
    except urllib.error.HTTPError as error:
      raise self._refused(error) from None
    except (OSError, HTTPException) as error:              # URLError and time-outs are OSErrors
      raise _Passing(f'no answer: {getattr(error, "reason", None) or error or type(error).__name__}') from None
    try:
      answer = json.loads(data)
    except ValueError:
      raise self._odd(f'no JSON: {data[:200]!r}') from None
    if len(data) > LARGEST or not isinstance(answer, dict):
      raise self._odd(f'{len(data)} bytes that are no object')
    return answer

  def _refused(self, error: urllib.error.HTTPError) -> Exception:
    """The error that an HTTP status stands for."""
    said = error.read(2000).decode('utf-8', 'replace').strip()
    said = said.replace(self._secret, '***') if self._secret else said
    why = f'status {error.code} {error.reason}: {said[:300]}'
    if error.code in PASSING or error.code >= 500:
      return _Passing(why, _seconds(error.headers.get('Retry-After')))
    if error.code in (401, 403):
      return ConfigError('endpoint.key-refused', f'{self.url}: key = {self.of.key!r}', why, 'put a key that it takes into that '
                         'variable')
    return ConfigError('endpoint.refused', f'{self.url}, model {self.of.model}', why, 'mend url, model or tokens')

  def _odd(self, why: str) -> UserError:
    return DataError('endpoint.bad-answer', self.url, f'it answered with {why}', "give the address of a server that speaks "
                     "OpenAI's chat-completions protocol")


class _Passing(Exception):
  """A failure that may pass; `after` is how many seconds the server asks to wait."""

  def __init__(self, why: str, after: float = 0.0):
    super().__init__(why)
    self.why, self.after = why, after


class _Stay(urllib.request.HTTPRedirectHandler):
  """Follows no redirect: it then counts as a refusal."""

  def redirect_request(self, *_: Any) -> None:
    return None


def _seconds(header: str | None) -> float:
  try:
    return max(0.0, float(header or 0))
  except ValueError:                     # a date
    return 0.0


def _options(top: dict[str, float], options: Sequence[str], client: Client) -> list[float]:
  """A log-prob for each option, not normalised. Raises: DataError if none of them is among the likeliest tokens."""
  found = {option: [logp for token, logp in top.items() if token.strip() == option] for option in options}
  if not any(found.values()):
    raise DataError('endpoint.no-option', f'{client.url}, model {client.of.model}', f'none of {", ".join(options)} is among '
                    f'its likeliest first tokens: {", ".join(map(repr, list(top)[:5]))}',
                    "ask for one of the options alone in the ballot's frame, and let each be a single token")
  return [float(np.logaddexp.reduce(found[option])) if found[option] else min(top.values()) for option in options]
