"""What transformers makes of exported classifiers: logits f32[B, L or 1, C], and classifiers of its own, saved, for us."""

import sys
from pathlib import Path

import numpy as np
import torch
import transformers

KINDS = {'Sequence': transformers.AutoModelForSequenceClassification, 'Token': transformers.AutoModelForTokenClassification}


def told(folder: Path, tokens: np.ndarray) -> np.ndarray:
  """The logits of rows without padding."""
  name, = transformers.AutoConfig.from_pretrained(folder).architectures
  model = KINDS['Sequence' if 'Sequence' in name else 'Token'].from_pretrained(folder).eval()
  assert type(model).__name__ == name
  with torch.no_grad():
    found = model(torch.tensor(tokens).long()).logits.numpy()
  return found if found.ndim == 3 else found[:, None]


def made(name: str, folder: Path, tokens: np.ndarray) -> np.ndarray:
  """The logits of a tiny model of random numbers, which is saved."""
  kind = name.split('For')[0]
  torch.manual_seed(0)
  config = getattr(transformers, f'{kind}Config')(
    vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, num_labels=3,
    max_position_embeddings=64, initializer_range=0.4, pad_token_id=1, type_vocab_size=1, layer_norm_eps=1e-5,
    id2label={0: 'a', 1: 'b', 2: 'c'}, label2id={'a': 0, 'b': 1, 'c': 2})
  getattr(transformers, name)(config).save_pretrained(folder)
  return told(folder, tokens)


if __name__ == '__main__':
  given, place = Path(sys.argv[1]), Path(sys.argv[2])
  with np.load(given) as held:
    rows, names = held['tokens'], [str(each) for each in held['names']]
  found = {f'ours/{name}': told(given.parent / 'ours' / name, rows) for name in names}
  found |= {f'theirs/{name}': made(name, given.parent / 'theirs' / name, rows) for name in names}
  np.savez(place, **found)
