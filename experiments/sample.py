"""Samples from a trained model: prints its answer to each prompt, or its continuation, token by token.

  python -m experiments.sample --run=runs/sotu-lm-1f3a9c42d0 --prompt='My fellow citizens,'
  python -m experiments.sample --run=runs/sotu-lm-1f3a9c42d0 --prompt='The economy' --prompt='Our army' --temperature=0.7
  python -m experiments.sample --run=runs/sotu-lm-1f3a9c42d0 --temperature=0 --stop='. ' < prompt.txt
  python -m experiments.sample --run=runs/smollm2-5b05f69390 --speculate=lookup < text_to_correct.txt

A chat model gets the prompt in its chat template, and answers; any other model continues the text. A warning is printed where
prompt and answer may exceed the context length that the model was trained on. Without --prompt the prompt is read from standard
input; at a terminal the model then begins a new document. The same --seed gives the same text. Sampling applies repetition
penalty, temperature, top-k, top-p and min-p, in this order.

--speculate turns on speculative decoding, which does not change the distribution and is faster where proposals are often
accepted. Prompts are then answered in batches of ROWS, and each text is printed when it is complete.
"""

import os
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

from experiments import interrupt

if __name__ == '__main__':
  interrupt.leave_at_once()             # before JAX is imported, which takes a second

import jax
import numpy as np
from absl import flags

from align.template_of import template_of
from experiments import command
from experiments.load import beyond, load_model
from experiments.processes import cache_compilations
from model import chat
from model.errors import ConfigError, DataError, StorageError
from model.generate import stream
from model.lookup import Lookup
from model.rounds import Draft, Drafter
from model.sampling import Sampling
from model.speculate import speculate
from model.tokenizer import Tokenizer, stream_text
from train.artifact import Store
from train.trained import Trained
from train.trained import load as open_run

ROWS = 16                           # prompts of a batch in speculative decoding
Begun = tuple[list[int], chat.Endings]      # the ids of a prompt, and what ends the answer
Answer = tuple[Iterator[int], str]  # its ids, and a line for standard error, '' for none

flags.declare_key_flag('run')
PROMPT = flags.DEFINE_multi_string('prompt', [], 'What the model goes on from; may be given several times.')
MAX_NEW = flags.DEFINE_integer('max_new', 200, 'Tokens to write at most.', lower_bound=1, upper_bound=1 << 20)
TEMPERATURE = flags.DEFINE_float('temperature', 0.8, '0 always takes the likeliest token; 1 samples as trained.')
TOP_K = flags.DEFINE_integer('top_k', 0, 'Sample among so many of the likeliest tokens; 0: all.')
TOP_P = flags.DEFINE_float('top_p', 1.0, 'Sample among the fewest tokens that hold this share of the probability.')
MIN_P = flags.DEFINE_float('min_p', 0.0, 'Sample among tokens with this share of the likeliest one\'s probability.')
PENALTY = flags.DEFINE_float('repetition_penalty', 1.0, 'Above 1, tokens that were there already become less likely.')
STOP = flags.DEFINE_multi_string('stop', [], 'Stop after this text; may be given several times.')
SPECULATE = flags.DEFINE_string('speculate', '', 'What proposes tokens: lookup, from the text itself; or the folder of a '
                                'smaller run of the same tokenizer.')
SEED = flags.DEFINE_integer('seed', 0, 'The seed of the randomness.', lower_bound=0, upper_bound=(1 << 63) - 1)


def main(overrides: command.Overrides) -> int:
  """Exit code 0 when all texts are printed."""
  command.no_overrides(overrides)
  sampling = Sampling(TEMPERATURE.value, TOP_K.value, TOP_P.value, MIN_P.value, PENALTY.value)
  run, folder = load_model(command.RUN.value)
  if not run.model.causal:
    raise ConfigError('config.not-causal', f'--run={command.RUN.value}', 'this model reads from both sides and cannot go '
                      'on with a text', 'give the folder of a run with a causal model')
  cache_compilations()
  wanted = prompts()
  store = Store(folder.parent)
  trained = open_run(run, store)
  drafter, begins = proposer(trained.tokenizer), [begun(template_of(run), trained.tokenizer, prompt) for prompt in wanted]
  longest = max(len(ids) for ids, _ in begins)
  print(beyond(run, store, longest + MAX_NEW.value, f'a prompt of {longest:,} tokens and --max_new={MAX_NEW.value} make'),
        end='', file=sys.stderr)
  try:
    for index, (prompt, (ids, note)) in enumerate(zip(wanted, answers(trained, drafter, begins, sampling))):
      if index:
        say('\n' + '-' * 40 + '\n')
      write(trained, prompt, ids)
      print(note, end='', file=sys.stderr)
  except BrokenPipeError:               # the reader has closed the pipe, as `| head` does: stop quietly
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
  return 0


def prompts() -> list[str]:
  """The prompts: from the flags, else standard input, at a terminal an empty one. Raises: DataError if one is not UTF-8."""
  wanted = PROMPT.value or ([''] if sys.stdin.isatty() else [sys.stdin.read()])
  for prompt in wanted:
    try:
      prompt.encode()
    except UnicodeEncodeError as error:
      raise DataError('data.not-utf8', f'the prompt, at character {error.start + 1}', 'what stands there is no UTF-8',
                      'convert it, for example with iconv -f latin1 -t utf-8') from None
  return wanted


def proposer(tokenizer: Tokenizer) -> Drafter | None:
  """The drafter that --speculate names, None for ''. Raises: ConfigError for a run with another tokenizer, or no run."""
  if SPECULATE.value in ('', 'lookup'):
    return Lookup() if SPECULATE.value else None
  flag, do = f'--speculate={SPECULATE.value}', 'give lookup, or the folder of a smaller run of the same tokenizer'
  try:
    run, folder = load_model(SPECULATE.value)
  except ConfigError as error:
    raise ConfigError(error.id, flag, error.why, do) from error
  draft = open_run(run, Store(folder.parent))
  if draft.tokenizer.fingerprint != tokenizer.fingerprint:
    raise ConfigError('speculate.tokenizer', flag, 'its tokenizer is not that of --run', do)
  return Draft(draft.model, draft.params)


def answers(trained: Trained, drafter: Drafter | None, begins: list[Begun], sampling: Sampling) -> Iterator[Answer]:
  """For each prompt, an iterator over the new ids and a note; without a drafter ids come as they are sampled."""
  before, ends = zip(*begins)
  how: dict[str, Any] = {'max_new': MAX_NEW.value, 'sampling': sampling, 'limit': trained.tokenizer.size, **ends[0]._asdict()}
  keys = jax.vmap(partial(jax.random.fold_in, jax.random.key(SEED.value)))(np.arange(len(before)))
  if drafter is None:
    yield from ((stream(trained.model, trained.params, ids, key=key, **how), '') for ids, key in zip(before, keys))
    return
  written, passes = speculate(trained.model, trained.params, list(before), drafter=drafter, key=keys, at_once=ROWS, **how)
  for row, count in zip(written.tokens, passes):
    yield iter(row.tolist()), f'{len(row)} tokens in {count} passes of the model\n'


def begun(template: chat.Template | None, tokenizer: Tokenizer, text: str) -> Begun:
  """The prompt's ids, as a user's message in the template or as plain text, and the stop conditions of the answer."""
  if template is None:
    return [tokenizer.bos, *tokenizer.encode(text)], chat.Endings(tokenizer.eos, ())
  return chat.prompt(template, tokenizer, [chat.Message('user', text)]), chat.ends(template, tokenizer)


def write(trained: Trained, prompt: str, ids: Iterator[int]) -> None:
  """Prints the prompt and the text of the ids, as they come."""
  say(f'{prompt}\n' if template_of(trained.run) else prompt)
  for piece in until(stream_text(trained.tokenizer, ids), STOP.value):
    say(piece)
  say('\n')


def say(text: str) -> None:
  """Prints and flushes. Raises: StorageError where standard output cannot be written to, such as on a full disk."""
  try:
    print(text, end='', flush=True)
  except BrokenPipeError:
    raise
  except OSError as error:
    raise StorageError('storage.cannot-write', 'standard output', error.strerror or str(error),
                       'make room, or write it elsewhere') from error


def until(parts: Iterator[str], stops: list[str]) -> Iterator[str]:
  """The parts up to the end of the first stop string, which may span several parts."""
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
