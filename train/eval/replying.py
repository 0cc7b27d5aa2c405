"""Greedy answers of a chat model to many questions, in batches, in the template that it was trained with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax

from model.chat import Message, Plain, Template, ends, prompt, reply
from model.decoder import own
from model.errors import ConfigError, DataError
from model.generate import generate
from model.sampling import Sampling
from train.eval.items import check_counts
from train.published import Published
from train.run import Parent
from train.trained import Trained

Talk = tuple[Message, ...]


class Replied(NamedTuple):
  """An answer, and whether it ended before the limit."""

  text: str
  ended: bool


@dataclass(frozen=True)
class Replying:
  """Limits: `tokens` of an answer, and `prompt_tokens` of a question; longer questions get no answer."""

  tokens: int = 32
  prompt_tokens: int = 512
  rows: int = 16                        # at a time

  def __post_init__(self):
    check_counts(tokens=self.tokens, prompt_tokens=self.prompt_tokens, rows=self.rows)

  def __call__(self, trained: Trained, template: Template, talks: Sequence[Talk]) -> list[Replied | None]:
    """An answer to each, None where the question is too long. Raises: DataError where all are, or as `prompt` does."""
    prompts = [prompt(template, trained.tokenizer, talk) for talk in talks]
    able = [place for place, ids in enumerate(prompts) if len(ids) <= self.prompt_tokens]
    if not able:
      raise DataError('task.too-long', f'{len(talks)} questions', f'none has a prompt of {self.prompt_tokens} tokens or fewer',
                      'raise prompt_tokens')
    able.sort(key=lambda place: -len(prompts[place]))        # those of about one length are read together
    ending = ends(template, trained.tokenizer)
    made = generate(trained.model, own(trained.params), [prompts[place] for place in able], max_new=self.tokens,
                    sampling=Sampling(0.0), key=jax.random.key(0), eos=ending.eos, stop=ending.stop,
                    limit=trained.tokenizer.size, at_once=self.rows)
    found: list[Replied | None] = [None] * len(talks)
    for place, ids, reason in zip(able, made.tokens, made.reasons):
      found[place] = Replied(reply(template, trained.tokenizer, ids.tolist()).content, reason != 'length')
    return found


def template_for(given: Template | None, run: Parent, task: str) -> Template:
  """The template that is given, else that of the published model that the run comes from, `Plain` if that has none.

  Raises: ConfigError where nothing says in which template to ask.
  """
  root = run
  while not isinstance(root, Published) and root.restore is not None:
    root = root.restore
  if given is None and not isinstance(root, Published):
    raise ConfigError('task.no-template', f'task {task!r} on {run.name}', 'nothing says in which template the run is asked',
                      'give the task one: template=Plain(), or the one that the run was taught in')
  return given or (root.template if isinstance(root, Published) else None) or Plain()


def check_answers(run: Parent, template: Template | None, task: str) -> None:
  """Returns if the model is causal and there is a template to ask it in. Raises: ConfigError."""
  if not run.model.causal:
    raise ConfigError('task.not-causal', f'task {task!r} on {run.name}', 'this model reads from both sides and writes nothing',
                      'give a run with a causal model')
  template_for(template, run, task)
