"""What transformers, PEFT and gguf make of exported models: `.venv-peers-trl/bin/python -m tests.peers.exported FOLDER`.

FOLDER holds some of these, made by tests/model/weights/test_exporting.py, or by hand with `python -m experiments.export`:

    model/          and expected.npz: tokens i32[B, L], logits f32[B, L, V] of ours
    adapters/       and adapted.npz: the same, with the adapters over the model
    model.gguf      whose tensors are all read by the gguf package, and of which transformers makes the same model
    said.json       {"ids": {text: its ids}, "talks": [[[messages, ask], ids]], "answers": {prompt: greedy text}, "max_new": n}

It prints what was compared as one object, and fails where something differs.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

CLOSE = 1e-4


def difference(model: Any, path: Path) -> float:
  """The most by which logits differ, as a share of the largest."""
  with np.load(path) as held, torch.no_grad():
    found, ours = model(torch.tensor(held['tokens']).long()).logits.float().numpy(), held['logits']
  return float(np.abs(found - ours).max() / np.abs(ours).max())


def talked(tokenizer: Any, talks: list[Any]) -> int:
  """How many conversations have our ids in the chat template."""
  for (messages, ask), ids in talks:
    said = [{'role': role, 'content': content} for role, content in messages]
    found = tokenizer.apply_chat_template(said, add_generation_prompt=ask, return_dict=False)
    assert found == ids, (messages, tokenizer.apply_chat_template(said, add_generation_prompt=ask, tokenize=False), found, ids)
  return len(talks)


def answered(model: Any, tokenizer: Any, said: dict[str, Any]) -> int:
  """How many prompts are answered with our words."""
  for prompt, text in said['answers'].items():
    asked = tokenizer.apply_chat_template([{'role': 'user', 'content': prompt}], add_generation_prompt=True,
                                          return_tensors='pt', return_dict=True)
    with torch.no_grad():
      ids = model.generate(**asked, do_sample=False, max_new_tokens=said['max_new'])[0, asked['input_ids'].shape[1]:]
    found = tokenizer.decode(ids, skip_special_tokens=True)
    assert found.strip() == text.strip(), (prompt, found, text)
  return len(said['answers'])


def tokenized(tokenizer: Any, texts: dict[str, list[int]]) -> int:
  """How many texts have our ids, and come back from them."""
  for text, ids in texts.items():
    found = tokenizer(text, add_special_tokens=False)['input_ids']
    assert found == ids and tokenizer.decode(ids) == text, (text, found, ids, tokenizer.decode(ids))
  return len(texts)


def read(path: Path) -> int:
  """How many tensors the gguf package reads, all of them finite."""
  from gguf import GGUFReader
  from gguf.quants import dequantize
  tensors = GGUFReader(path).tensors
  assert all(np.isfinite(dequantize(each.data, each.tensor_type)).all() for each in tensors)
  return len(tensors)


def main(folder: Path) -> dict[str, Any]:
  found: dict[str, Any] = {}
  if (folder / 'model.gguf').exists():
    file = AutoModelForCausalLM.from_pretrained(folder, gguf_file='model.gguf', dtype=torch.float32).eval()
    found |= {'gguf tensors': read(folder / 'model.gguf'), 'gguf: logits differ by': difference(file, folder / 'expected.npz')}
    assert found['gguf: logits differ by'] < CLOSE, found
  model = AutoModelForCausalLM.from_pretrained(folder / 'model', dtype=torch.float32).eval()
  tokenizer = AutoTokenizer.from_pretrained(folder / 'model')
  if (folder / 'said.json').exists():
    said = json.loads((folder / 'said.json').read_text(encoding='utf-8'))
    found |= {'texts': tokenized(tokenizer, said['ids']), 'talks': talked(tokenizer, said['talks']),
              'answers': answered(model, tokenizer, said)}
  for name, adapters in (('expected', None), ('adapted', folder / 'adapters')):
    if (folder / f'{name}.npz').exists():
      if adapters is not None:
        from peft import PeftModel
        model = PeftModel.from_pretrained(model, adapters).eval()
      found[f'{name}: logits differ by'] = difference(model, folder / f'{name}.npz')
      assert found[f'{name}: logits differ by'] < CLOSE, found
  return found


if __name__ == '__main__':
  print(json.dumps(main(Path(sys.argv[1]).resolve()), indent=2))
