"""Greedy decoding in float32 beside transformers and llama.cpp, at 1 and at 16 rows, of two models.

    10m         a Llama of 10.5 million parameters, as they are initialised
    smollm2     SmolLM2-135M, real weights from the package index

All read the same files, decode the same prompts of one length, and have written their ids before they are timed: transformers
the same as ours, llama.cpp nearly so, for it rounds otherwise.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from experiments.bench.driver import Contestant, Race, race
from experiments.bench.line import Line, raced
from experiments.bench.ours.lineage import MadeUp
from experiments.bench.ours.model import decoder
from experiments.bench.setting import Setting
from experiments.bench.task import DECODED, GGUF, PROMPTED, PROMPTS, TASK, THEIRS
from experiments.smollm2.chat import get_config
from model.config import Decoder
from model.decoder import Params, build
from model.sharding import unbox
from model.tokenizer import Tokenizer
from model.weights.exporting import export, export_gguf
from train.artifact import Store
from train.data.corpus import Corpus
from train.data.vocabulary import Vocabulary
from train.trained import load

OURS, PEER, LLAMA = 'ours', 'HF eager', 'llama.cpp'
TEXTS = ('The history of the city begins with a small village near the river, where people', 'In the morning the ships left',
         'Every student should know that the sum of two numbers is', 'def add(a, b):\n  return a + b\n\nprint(add(1, 2))\n\n')


@dataclass(frozen=True)
class Subject:
  """A model that is decoded: `lay` writes it and its prompts; `asked` is the wanted speed beside each peer, by rows."""

  label: str                            # of its lines: decode-{label}{rows}
  lay: Callable[[Path], None]
  asked: dict[int, dict[str, float]]
  steps: int                            # of a turn


def lines(setting: Setting) -> Iterator[Line]:
  """One line for each model and number of rows."""
  for subject in SUBJECTS:
    folder = setting.room(f'decode-{subject.label}')
    subject.lay(folder)
    jax.clear_caches()
    for rows in subject.asked:
      racers = [Contestant(OURS, 'experiments.bench.ours.decode', (str(folder), str(rows))),
                *setting.peer(PEER, 'trl', 'hf_decode', str(folder), str(rows)),
                *setting.peer(LLAMA, 'llama', 'llama_decode', str(folder), str(rows))]
      yield judged(race(racers, *setting.rounds(subject.steps), folder), subject, rows, setting.quick)


def smollm2(folder: Path) -> None:
  """Lays out SmolLM2 and prompts of English and of Python."""
  published, store = get_config(), Store(folder / 'runs')
  store.make(published)
  found = load(published, store)
  ids = found.tokenizer.encode(' '.join(TEXTS) * 8)
  write(folder, published.model, found.params, found.tokenizer, [ids[7 * row:7 * row + PROMPTED] for row in range(16)])


def initialised(folder: Path) -> None:
  """Lays out the model of the training benchmark and prompts of random tokens, with a vocabulary of made-up words."""
  store, texts = Store(folder / 'runs'), Corpus(name='texts', sources=(MadeUp(),), stages=())
  words = Vocabulary(name='words', corpus=texts, size=TASK.vocab)
  store.make(words)
  prompts = np.random.default_rng(0).integers(TASK.vocab // 2, TASK.vocab, (16, PROMPTED))     # no control tokens, no bytes
  config = decoder(TASK)
  write(folder, config, unbox(build(config).init(jax.random.key(0))), words.load(store), prompts.tolist())


def write(folder: Path, config: Decoder, params: Params, tokenizer: Tokenizer, prompts: list[list[int]]) -> None:
  """The model as all contestants read it, and the prompts."""
  export(folder / THEIRS, config, params, tokenizer)
  export_gguf(folder / GGUF, config, params, tokenizer, kind='F32')
  (folder / PROMPTS).write_text(json.dumps(prompts))


SUBJECTS = (Subject('10m-', initialised, {1: {PEER: 2.5}, 16: {PEER: 1.8, LLAMA: 1.0}}, steps=20),
            Subject('', smollm2, {1: {PEER: 2.0, LLAMA: 1.0}, 16: {PEER: 1.8, LLAMA: 1.0}}, steps=3))


def judged(found: Race, subject: Subject, rows: int, quick: bool) -> Line:
  """The line of a race: ids first."""
  line = Line(f'decode-{subject.label}{rows}', 's/step', raced(found, found.turns), OURS, load=found.load, quick=quick)
  line.targets = line.speeds(subject.asked[rows])
  same = {who: same_share(found.prepared[who]['ids'], found.prepared[OURS]['ids']) for who in found.turns}
  line.checks = {'equal': all(share == 1.0 for who, share in same.items() if who != LLAMA), 'same_ids': same,
                 'died': list(found.died), 'missing': [] if PEER in line.figures else [PEER]}
  line.more = {'tokens_per_s': {who: rows * DECODED / each.median for who, each in line.figures.items()},
               'load_s': {who: found.prepared[who]['load_s'] for who in found.turns},
               'peak_mb': {who: found.prepared[who]['peak_mb'] for who in found.turns}}
  return line


def same_share(ids: list[list[int]], others: list[list[int]]) -> float:
  """The share of places where two sets of rows have the same id."""
  pairs = [a == b for row, other in zip(ids, others) for a, b in zip(row, other)]
  return sum(pairs) / len(pairs)
