"""A trained run as the writer that `train.data.rewrite` asks for: sentences in other words, by a model."""

from dataclasses import dataclass

import jax

from model.errors import ConfigError
from model.generate import generate
from model.sampling import Sampling
from train.artifact import Store
from train.data.rewrite import Write
from train.run import Run
from train.trained import load


@dataclass(frozen=True)
class Paraphrase:
  """What a run's model writes after `prompt`, in which `{span}` stands for the sentence, up to the end of the line.

  A sentence stays as it is where the model has nothing to say. It is worth what the model is worth: one that follows
  instructions rewrites, one that only continues text makes noise.
  """

  run: Run
  prompt: str = '{span}\nIn other words: '
  max_new: int = 64
  sampling: Sampling = Sampling(temperature=0.7)

  def __post_init__(self):
    if self.prompt.count('{span}') != 1:
      raise ConfigError('config.prompt', f'prompt = {self.prompt!r}', 'it must hold {span} once, for the sentence',
                        "write for example '{span}\\nIn other words: '")

  def open(self, store: Store) -> Write:
    """A function of spans and seeds. One span at a time: a row's chance depends on its place in a batch."""
    trained = load(self.run, store)
    before, after = self.prompt.split('{span}')
    end = tuple((tuple(trained.tokenizer.encode('\n')),))

    def write(span: str, seed: int) -> str:
      ids = [trained.tokenizer.bos, *trained.tokenizer.encode(before + span.strip() + after)]
      said = generate(trained.model, trained.params, [ids], max_new=self.max_new, sampling=self.sampling, stop=end,
                      key=jax.random.key(seed), eos=trained.tokenizer.eos, limit=trained.tokenizer.size)
      text = trained.tokenizer.decode([int(id) for id in said.tokens[0] if id != trained.tokenizer.eos]).strip()
      return span.replace(span.strip(), text) if text else span

    return lambda spans, seeds: [write(span, seed) for span, seed in zip(spans, seeds)]
