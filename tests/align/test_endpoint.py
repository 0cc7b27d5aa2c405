"""The client of OpenAI's protocol against a server on this machine that speaks it, and that misbehaves."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from align.ai_preferences import AiPreferences
from align.constitution import Ballot
from align.endpoint import Endpoint
from align.questions import FromTask
from align.revisions import Revisions
from align.tasks import Sums
from model.chat import Message
from model.errors import ConfigError, DataError, PeerError, UserError
from tests.align.judges import PRINCIPLES
from train.artifact import Store, digest, encode

TALK = (Message('system', 'Be brief.'), Message('user', 'Two?'))
STORE = Store('nowhere')


class Server(ThreadingHTTPServer):
  """Answers each request with the next of `answers` (status, body, headers), the last for ever; keeps what it was asked."""

  def __init__(self, answers):
    super().__init__(('127.0.0.1', 0), Handler)
    self.answers, self.asked, self.guard, self.sleep = list(answers), [], threading.Lock(), 0.0

  def handle_error(self, *_):
    pass                                  # a client that hung up


class Handler(BaseHTTPRequestHandler):

  def do_POST(self):
    body = self.rfile.read(int(self.headers['Content-Length']))
    with self.server.guard:
      self.server.asked.append((self.path, dict(self.headers), json.loads(body), time.monotonic()))
      answer = self.server.answers.pop(0) if len(self.server.answers) > 1 else self.server.answers[0]
    time.sleep(self.server.sleep)
    status, said, headers = answer(json.loads(body)) if callable(answer) else answer
    data = said if isinstance(said, bytes) else json.dumps(said).encode()
    self.send_response(status)
    for name, value in headers.items():
      self.send_header(name, value)
    self.end_headers()
    self.wfile.write(data)

  do_GET = do_POST

  def log_message(self, *_):
    pass


@contextmanager
def serving(*answers) -> Iterator[tuple[Server, Endpoint]]:
  with Server(answers) as server:
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server, Endpoint(f'http://127.0.0.1:{server.server_port}/v1/', 'm', wait=0.01, tries=3, seconds=5)
    server.shutdown()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
  monkeypatch.setenv('no_proxy', '*')


def text(said: str, reason: str = 'stop'):
  return 200, {'choices': [{'message': {'role': 'assistant', 'content': said}, 'finish_reason': reason}]}, {}


def likeliest(**logps: float):
  top = [{'token': token, 'logprob': logp} for token, logp in logps.items()]
  return 200, {'choices': [{'message': {'content': 'A'}, 'logprobs': {'content': [{'top_logprobs': top}]}}]}, {}


def test_it_writes_what_the_server_says_and_asks_as_the_protocol_has_it(monkeypatch):
  monkeypatch.setenv('SOME_KEY', 'sk-secret')
  with serving(text(' Yes. ')) as (server, endpoint):
    said = replace(endpoint, key='SOME_KEY', tokens=7, temperature=0.5).open(STORE).write([TALK], [11])
  (path, headers, body, _), = server.asked
  assert path == '/v1/chat/completions' and headers['Authorization'] == 'Bearer sk-secret'
  assert body == {'model': 'm', 'max_tokens': 7, 'temperature': 0.5, 'seed': 11,
                  'messages': [{'role': 'system', 'content': 'Be brief.'}, {'role': 'user', 'content': 'Two?'}]}
  assert said == [('Yes.', False)]


def test_answers_come_in_the_order_of_the_questions_and_say_whether_they_were_cut():
  def answer(body):
    time.sleep(0.05 if body['seed'] == 0 else 0)
    return text(str(body['seed']), 'length' if body['seed'] == 1 else 'stop')

  with serving(answer) as (server, endpoint):
    said = endpoint.open(STORE).write([TALK] * 6, range(6))
  assert said == [(str(seed), seed == 1) for seed in range(6)] and 'Authorization' not in server.asked[0][1]


def test_an_option_is_weighed_with_and_without_its_blank_and_normalised():
  top = likeliest(**{'A': np.log(0.2), ' A': np.log(0.1), 'B': np.log(0.1), 'a': np.log(0.5), 'AB': np.log(0.05)})
  with serving(top) as (server, endpoint):
    logps = endpoint.open(STORE).weigh([TALK, TALK], ('A', 'B'))
  np.testing.assert_allclose(np.exp(logps), [[0.75, 0.25]] * 2)
  assert server.asked[0][2].items() >= {'max_tokens': 1, 'logprobs': True, 'top_logprobs': 20, 'temperature': 1.0}.items()


def test_an_option_that_is_not_among_the_likeliest_counts_as_the_last_of_them():
  with serving(likeliest(A=-0.1, x=-4.0, y=float('-inf'))) as (_, endpoint):
    logps = endpoint.open(STORE).weigh([TALK], ('A', 'B'))
  assert np.isfinite(logps).all() and logps[0, 1] < -9000


@pytest.mark.parametrize('answers', [
  [(503, b'busy', {})], [(429, b'slow down', {}), (500, b'', {})], [(408, b'', {}), (409, b'', {})],
])
def test_what_may_pass_is_tried_again(answers):
  with serving(*answers, text('at last')) as (server, endpoint):
    assert endpoint.open(STORE).write([TALK], [0])[0].text == 'at last'
  assert len(server.asked) == len(answers) + 1


def test_waits_double_and_the_server_may_ask_for_more():
  with serving((503, b'', {}), (503, b'', {}), (429, b'', {'Retry-After': '0.5'}), text('x')) as (server, endpoint):
    replace(endpoint, wait=0.1, tries=4).open(STORE).write([TALK], [0])
  gaps = np.diff([at for *_, at in server.asked])
  assert gaps[0] > 0.09 and gaps[1] > 0.19 and gaps[2] > 0.49


REFUSALS = [
  ((401, {'error': 'bad key sk-secret'}, {}), ConfigError, 'endpoint.key-refused', 1),
  ((404, {'error': 'no model m'}, {}), ConfigError, 'endpoint.refused', 1),
  ((307, b'', {'Location': 'http://127.0.0.1:1/steal'}), ConfigError, 'endpoint.refused', 1),
  ((302, b'', {'Location': '/v1/other'}), ConfigError, 'endpoint.refused', 1),
  ((503, b'sk-secret is busy', {}), PeerError, 'endpoint.unreachable', 3),
  ((200, b'<html>', {}), DataError, 'endpoint.bad-answer', 1),
  ((200, [1], {}), DataError, 'endpoint.bad-answer', 1),
  ((200, {'choices': []}, {}), DataError, 'endpoint.bad-answer', 1),
  ((200, {'choices': [{'message': {'content': None}}]}, {}), DataError, 'endpoint.bad-answer', 1),
]


@pytest.mark.parametrize('answer, kind, id, times', REFUSALS)
def test_each_failure_has_a_name_and_none_tells_the_key(monkeypatch, answer, kind, id, times):
  monkeypatch.setenv('SOME_KEY', 'sk-secret')
  with serving(answer) as (server, endpoint), pytest.raises(UserError) as refusal:
    replace(endpoint, key='SOME_KEY').open(STORE).write([TALK], [0])
  assert isinstance(refusal.value, kind) and refusal.value.id == id
  assert 'sk-secret' not in str(refusal.value) and len(server.asked) == times


@pytest.mark.parametrize('answer, id', [
  (text('A'), 'endpoint.no-logprobs'), (likeliest(C=-0.1), 'endpoint.no-option'), (likeliest(A=float('nan')),
                                                                                   'endpoint.no-logprobs')])
def test_a_judge_that_cannot_weigh_is_refused(answer, id):
  with serving(answer) as (_, endpoint), pytest.raises(DataError) as refusal:
    endpoint.open(STORE).weigh([TALK], ('A', 'B'))
  assert refusal.value.id == id


def test_a_server_that_is_not_there_or_too_slow_is_unreachable():
  with serving(text('late')) as (server, endpoint), pytest.raises(PeerError, match='timed out'):
    server.sleep = 0.3
    replace(endpoint, seconds=0.05, tries=2).open(STORE).write([TALK], [0])
  with pytest.raises(PeerError, match=r'refused.*2 times'):
    replace(endpoint, tries=2).open(STORE).write([TALK], [0])


def test_the_key_is_named_and_never_written(monkeypatch):
  endpoint = Endpoint('https://host/v1', 'm', key='SOME_KEY')
  monkeypatch.delenv('SOME_KEY', raising=False)
  with pytest.raises(ConfigError, match='SOME_KEY'):
    endpoint.open(STORE)
  monkeypatch.setenv('SOME_KEY', 'sk-secret')
  assert 'sk-secret' not in json.dumps(encode(endpoint)) and digest(endpoint) == digest(replace(endpoint, key=None))


@pytest.mark.parametrize('url', ['file:///etc/passwd', 'localhost:8000', 'http://', 'http://me:pass@host/v1', 'http://h/v1?k=1'])
def test_an_address_that_is_none_is_refused(url):
  with pytest.raises(ConfigError, match='url'):
    Endpoint(url, 'm')


def test_preferences_and_revisions_can_be_asked_of_a_server(tmp_path):
  def answer(body):
    asked = body['messages'][-1]['content']
    if not body.get('logprobs'):
      return text(f'{asked[:4]} {body["seed"] % 5}')
    first, second = asked.split('|')[1:3]
    return likeliest(A=float(first[-1]), B=float(second[-1]))

  with serving(answer) as (_, endpoint):
    shared = {'questions': FromTask(Sums()), 'principles': PRINCIPLES, 'count': 12}
    ballot = Ballot('{talk}|{first}|{second}|{prefer}')
    store = Store(tmp_path)
    judged = store.make(AiPreferences(name='judged', writers=(endpoint,) * 2, judge=endpoint, ballot=ballot, **shared))
    mended = store.make(Revisions(name='mended', writer=endpoint, critic=endpoint, draws=1, **shared))
  for record in (json.loads(line) for line in (judged / 'judged.jsonl').read_text().splitlines()):
    if record['outcome'] == 'judged':
      one, two = (float(each[-1]) for each in record['answers'])
      assert record['label'] == pytest.approx(1 / (1 + np.exp(two - one)), abs=1e-5)
  steps = [json.loads(line) for line in (mended / 'steps.jsonl').read_text().splitlines()]
  assert all(step['answer'].startswith('What') and step['final'].startswith('Be ') for step in steps)
