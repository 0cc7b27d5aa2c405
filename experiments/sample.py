"""Writes what a trained model says after each prompt, letter by letter, as it comes.

  python -m experiments.sample --run=runs/sotu-lm-1f3a9c42d0 --prompt='My fellow citizens,'
  python -m experiments.sample --run=runs/sotu-lm-1f3a9c42d0 --prompt='The economy' --prompt='Our army' --temperature=0.7
  python -m experiments.sample --run=runs/sotu-lm-1f3a9c42d0 --temperature=0 --stop='. ' < prompt.txt

Without --prompt the text comes from standard input; at a terminal the model begins a document of its own. The same
--seed gives the same text. Settings work in this order: repetition penalty, temperature, top-k, top-p, min-p.
"""

import codecs
import sys
from collections.abc import Iterator

import jax
from absl import flags

from experiments import command
from experiments.load import load_run
from experiments.processes import cache_compilations
from model.generate import stream
from model.sampling import Sampling
from model.tokenizer import Tokenizer
from train.artifact import Store
from train.trained import Trained
from train.trained import load as open_run

flags.declare_key_flag('run')
PROMPT = flags.DEFINE_multi_string('prompt', [], 'What the model goes on from; may be given several times.')
MAX_NEW = flags.DEFINE_integer('max_new', 200, 'Tokens to write at most.', lower_bound=1)
TEMPERATURE = flags.DEFINE_float('temperature', 0.8, '0 always takes the likeliest token; 1 samples as trained.')
TOP_K = flags.DEFINE_integer('top_k', 0, 'Sample among so many of the likeliest tokens; 0: all.')
TOP_P = flags.DEFINE_float('top_p', 1.0, 'Sample among the fewest tokens that hold this share of the probability.')
MIN_P = flags.DEFINE_float('min_p', 0.0, 'Sample among tokens with this share of the likeliest one\'s probability.')
PENALTY = flags.DEFINE_float('repetition_penalty', 1.0, 'Above 1, tokens that were there already become less likely.')
STOP = flags.DEFINE_multi_string('stop', [], 'Stop after this text; may be given several times.')
SEED = flags.DEFINE_integer('seed', 0, 'The seed of the randomness.')


def main(overrides: command.Overrides) -> int:
  """Exit code 0 when all is written."""
  command.no_overrides(overrides)
  sampling = Sampling(TEMPERATURE.value, TOP_K.value, TOP_P.value, MIN_P.value, PENALTY.value)
  run, folder = load_run(command.RUN.value)
  cache_compilations()
  trained = open_run(run, Store(folder.parent))
  for index, prompt in enumerate(prompts()):
    if index:
      print('\n' + '-' * 40)
    write(trained, prompt, sampling, jax.random.fold_in(jax.random.key(SEED.value), index))
  return 0


def prompts() -> list[str]:
  """The prompts: from the flags, else standard input, else one that is empty."""
  if PROMPT.value:
    return PROMPT.value
  return [''] if sys.stdin.isatty() else [sys.stdin.read()]


def write(trained: Trained, prompt: str, sampling: Sampling, key: jax.Array) -> None:
  """Prints the prompt and what follows, as it comes."""
  tokenizer = trained.tokenizer
  ids = stream(trained.model, trained.params, [tokenizer.bos, *tokenizer.encode(prompt)], max_new=MAX_NEW.value,
               sampling=sampling, key=key, eos=tokenizer.eos, limit=tokenizer.size)
  print(prompt, end='', flush=True)
  for piece in until(pieces(tokenizer, ids), STOP.value):
    print(piece, end='', flush=True)
  print()


def pieces(tokenizer: Tokenizer, ids: Iterator[int]) -> Iterator[str]:
  """The text of the ids in pieces of whole characters: a character may be spread over several ids."""
  decoder = codecs.getincrementaldecoder('utf-8')('replace')
  for id in ids:
    yield decoder.decode(tokenizer.decode_bytes([id]))
  yield decoder.decode(b'', final=True)


def until(parts: Iterator[str], stops: list[str]) -> Iterator[str]:
  """The parts up to and with the first of the stops, which may begin in one part and end in another."""
  longest = max(map(len, stops), default=0)
  tail = ''
  for part in parts:
    seen = tail + part
    ends = [seen.index(stop) + len(stop) for stop in stops if stop and stop in seen]
    if ends:
      yield seen[len(tail):min(ends)]
      return
    yield part
    tail = seen[-longest:] if longest else ''


if __name__ == '__main__':
  command.run(main)
