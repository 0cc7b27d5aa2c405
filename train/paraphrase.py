"""Paraphrases by a trained model: a writer for `train.data.rewrite`."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from model.errors import ConfigError
from model.generate import generate
from model.sampling import Sampling
from train.artifact import Store, how
from train.data.rewrite import Write
from train.run import Run
from train.trained import Trained, load


@dataclass(frozen=True)
class Paraphrase:
  """What a run's model writes after `prompt`, in which `{span}` stands for the sentence, up to the end of the line.

  A sentence stays as it is where the model has nothing to say. It is worth what the model is worth: one that follows
  instructions rewrites, one that only continues text makes noise. `batch` sentences are written at a time.
  """

  run: Run
  prompt: str = '{span}\nIn other words: '
  max_new: int = 64
  sampling: Sampling = Sampling(temperature=0.7)
  batch: int = how(32)

  def __post_init__(self):
    if self.prompt.count('{span}') != 1:
      raise ConfigError('config.prompt', f'prompt = {self.prompt!r}', 'it must hold {span} once, for the sentence',
                        "write for example '{span}\\nIn other words: '")
    if self.batch < 1:
      raise ConfigError('config.out-of-range', f'batch = {self.batch}', 'it counts sentences', 'use 1 or more')

  def open(self, store: Store) -> Write:
    """A function of spans and seeds. Each span has a key of its own, so that what it becomes does not depend on others."""
    trained = load(self.run, store)
    before, after = self.prompt.split('{span}')

    def write(spans: list[str], seeds: list[int]) -> list[str]:
      prompts = [[trained.tokenizer.bos, *trained.tokenizer.encode(before + span.strip() + after)] for span in spans]
      order = sorted(range(len(spans)), key=lambda i: len(prompts[i]))      # neighbours of a length need little padding
      said = dict(zip(order, self._say(trained, [prompts[i] for i in order], [seeds[i] for i in order])))
      return [span.replace(span.strip(), said[i]) if said[i] else span for i, span in enumerate(spans)]

    return write

  def _say(self, trained: Trained, prompts: list[list[int]], seeds: list[int]) -> list[str]:
    """What the model says after each prompt."""
    tokenizer, keys_B = trained.tokenizer, jax.vmap(jax.random.key)(jnp.array(seeds, jnp.uint32))
    made = generate(trained.model, trained.params, prompts, max_new=self.max_new, sampling=self.sampling, key=keys_B,
                    eos=tokenizer.eos, stop=(tuple(tokenizer.encode('\n')),), limit=tokenizer.size, at_once=self.batch)
    return [tokenizer.decode([int(id) for id in ids if id != tokenizer.eos]).strip() for ids in made.tokens]
