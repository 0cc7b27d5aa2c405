"""Tests control tokens: are held-out texts likelier after their own control token than after any other?

  python -m experiments.smollm2.heed --run=runs/smollm2-verdicts-... --documents=400

For a run trained on `CodedTokens`. Prints the share of texts for which that is so and the mean difference of log-probs, nats,
both with standard errors, and samples after each token.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments import command
from experiments.load import load_model
from experiments.processes import cache_compilations
from model.errors import ConfigError
from model.generate import generate
from model.sampling import Sampling
from train.artifact import Store
from train.data.codes import CodedTokens
from train.data.rows import Rows
from train.run import Run
from train.trained import Trained, load

flags.declare_key_flag('run')
DOCUMENTS = flags.DEFINE_integer('documents', 400, 'Held-out texts that are tried, evenly over all of them.', lower_bound=1)
SAMPLES = flags.DEFINE_integer('samples', 3, 'Texts that are written after each token.', lower_bound=0)
LONGEST, AT_ONCE = 96, 16            # tokens of a text; texts of a batch


def main(overrides: command.Overrides) -> int:
  """Exit code 0 when all is printed."""
  command.no_overrides(overrides)
  run, folder = load_model(command.RUN.value)
  if not isinstance(run, Run) or not isinstance(run.rows, Rows) or not isinstance(run.rows.tokens, CodedTokens):
    raise ConfigError('heed.no-codes', command.RUN.value, 'its texts do not stand after control tokens', 'give a run that '
                      'reads CodedTokens')
  cache_compilations()
  store = Store(folder.parent)
  trained = load(run, store)
  codes = {said: trained.tokenizer.controls[token] for said, token in run.rows.tokens.codes}
  tell(gains(trained, store, run.rows.tokens, list(codes.values())))
  for said, code in codes.items():
    write(trained, said, code)
  return 0


def gains(trained: Trained, store: Store, tokens: CodedTokens, codes: list[int]) -> np.ndarray:
  """f64[documents]: log p(text) after its own control token less the highest after another one, nats."""
  split = tokens.open(store, 'heldout')
  spans = [(begin, end) for begin, end in zip(split.offsets, split.offsets[1:]) if end - begin <= LONGEST]
  texts = [split.ids[begin:end].astype(np.int32) for begin, end in spans]
  texts = [texts[i] for i in np.linspace(0, len(texts) - 1, min(DOCUMENTS.value, len(texts))).astype(int)]

  @jax.jit
  def said(params, tokens_BL, lengths_B):
    segments_BL = (jnp.arange(LONGEST - 1) < lengths_B[:, None] - 1).astype(jnp.int32)
    hidden = trained.model.hidden(params, tokens_BL[:, :-1], segments_BL)
    logp_BL = trained.model.logp(params, hidden.x_BLD, tokens_BL[:, 1:])
    return jnp.where((segments_BL > 0) & (jnp.arange(LONGEST - 1) > 0), logp_BL, 0.0).sum(1)

  found = np.empty((len(texts), len(codes)))
  for begin in range(0, len(texts), AT_ONCE):
    some = texts[begin:begin + AT_ONCE]
    tokens_BL, lengths_B = np.zeros((AT_ONCE, LONGEST), np.int32), np.ones(AT_ONCE, np.int32)
    for row, ids in enumerate(some):
      tokens_BL[row, :len(ids)], lengths_B[row] = ids, len(ids)
    for place, code in enumerate(codes):
      tokens_BL[:, 1] = code
      found[begin:begin + len(some), place] = np.asarray(said(trained.params, tokens_BL, lengths_B))[:len(some)]
  own = np.array([codes.index(int(ids[1])) for ids in texts])[:, None] == np.arange(len(codes))
  return found[own] - np.where(own, -np.inf, found).max(1)


def tell(gain: np.ndarray) -> None:
  """Prints the share of positive gains and the mean gain, with standard errors."""
  share, error = float((gain > 0).mean()), float((gain > 0).std() / math.sqrt(len(gain)))
  print(f'{len(gain)} held-out texts: {share:.1%} (standard error {100 * error:.1f}) are likelier after their own token; '
        f'{gain.mean():.3f} nats a text (standard error {gain.std() / math.sqrt(len(gain)):.3f})')


def write(trained: Trained, said: str, code: int) -> None:
  """Prints samples of the model after a control token."""
  tokenizer = trained.tokenizer
  made = generate(trained.model, trained.params, [[tokenizer.bos, code]] * SAMPLES.value, max_new=40,
                  sampling=Sampling(temperature=0.7), key=jax.random.key(0), eos=tokenizer.eos, limit=tokenizer.size)
  for row in made.tokens:
    print(f'  {said}: {tokenizer.decode(row.tolist())}')


if __name__ == '__main__':
  command.run(main)
