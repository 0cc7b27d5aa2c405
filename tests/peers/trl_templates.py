"""The chat templates of published models that TRL brings, and what transformers writes with them; '!' where it fails."""

import sys
from pathlib import Path

import numpy as np
import trl
from transformers.utils.chat_template_utils import render_jinja_template


def written(source: str, talk: list[dict[str, str]], ask: bool) -> str:
  try:
    texts, _ = render_jinja_template([talk], chat_template=source, add_generation_prompt=ask, bos_token='<|bos|>',
                                     eos_token='<|eos|>', pad_token='<|pad|>')
  except Exception as error:
    return f'!{error}'
  return texts[0]


def main(source: str, target: str) -> None:
  with np.load(source) as held:
    talk = [{'role': str(role), 'content': str(content)} for role, content in held['talk']]
  paths = sorted((Path(trl.__file__).parent / 'chat_templates').glob('*.jinja'))
  sources = [path.read_text(encoding='utf-8') for path in paths]
  np.savez(target, sources=np.array(sources), whole=np.array([written(each, talk, False) for each in sources]),
           prompt=np.array([written(each, talk[:-1], True) for each in sources]))


if __name__ == '__main__':
  main(*sys.argv[1:])
