"""Semantic search: prints the lines of a text that are most similar to a query, by the cosine of their embeddings.

  python -m experiments.embedding.search --run=runs/minilm-83cdb55e67 --query='How do plants make food?' < lines.txt

All lines are embedded in each call: about 5 ms for a short line with MiniLM on two cores.
"""

import sys

import numpy as np
from absl import flags

from experiments import command
from experiments.load import load_model
from experiments.processes import cache_compilations
from model.embedding import Embedder
from model.errors import ConfigError, DataError
from train.artifact import Store
from train.trained import load

flags.declare_key_flag('run')
QUERY = flags.DEFINE_multi_string('query', [], 'What is looked for; may be given several times.')
BEST = flags.DEFINE_integer('best', 5, 'Lines to write for each query.', lower_bound=1)


def main(overrides: command.Overrides) -> int:
  """Exit code 0 when the results are printed."""
  command.no_overrides(overrides)
  if not QUERY.value:
    raise ConfigError('config.no-query', '--query', 'nothing is looked for', "give --query='some words'")
  run, folder = load_model(command.RUN.value)
  if run.model.causal or run.model.head is not None:
    raise ConfigError('config.no-encoder', f'--run={command.RUN.value}', 'its model was not made to embed sentences',
                      'give the folder of one that was: see experiments/embedding/minilm.py')
  cache_compilations()
  lines = read()
  trained = load(run, Store(folder.parent))
  embedder = Embedder(trained.model, trained.params, trained.tokenizer)
  for query, cosines in zip(QUERY.value, embedder(QUERY.value) @ embedder(lines).T):
    print(query)
    for i in np.argsort(-cosines, kind='stable')[:BEST.value]:
      print(f'  {cosines[i]:.3f}  {lines[i]}')
  return 0


def read() -> list[str]:
  """The lines of standard input that are not blank. Raises: DataError if it is not UTF-8, or there are none."""
  try:
    lines = [line.strip() for line in sys.stdin.buffer.read().decode().splitlines() if line.strip()]
  except UnicodeDecodeError as error:
    raise DataError('data.not-utf8', f'standard input, at byte {error.start + 1}', 'what stands there is no UTF-8',
                    'convert it, for example with iconv -f latin1 -t utf-8') from None
  if not lines:
    raise DataError('data.empty', 'standard input', 'there is no line in it', 'give the lines to search, one text a line')
  return lines


if __name__ == '__main__':
  command.run(main)
