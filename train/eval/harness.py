"""A model of this house for lm-evaluation-harness (`pip install lm-eval`): its tasks, on any run or published model.

Log-likelihoods, rolling ones and greedy writing come from `train.eval.likelihood`; tasks, few shots and figures are theirs.
"""

from collections.abc import Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from tqdm import tqdm

from train.eval.likelihood import Likelihoods

WRITTEN = 256            # tokens, where a task says nothing


class Harness(LM):
  """An `lm_eval.api.model.LM`."""

  def __init__(self, model: Likelihoods):
    super().__init__()
    self.asked = model

  def loglikelihood(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
    """(log-prob in nats, whether greedy decoding would write it) of each (context, continuation)."""
    pairs = [self.asked.pair(*request.args) for request in requests]
    return [(each.logp, each.greedy) for each in self.asked.continuations(pairs)]

  def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
    """The log-prob of each whole text, nats."""
    return self.asked.wholes([request.args[0] for request in requests])

  def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
    """What is written after each context, up to the first of the texts that end it."""
    return [self._written(*request.args) for request in tqdm(requests, disable=disable_tqdm or None)]

  def _written(self, context: str, wanted: dict[str, Any]) -> str:
    until = wanted.get('until') or []
    temperature = float(wanted.get('temperature') or 0.0) if wanted.get('do_sample') else 0.0
    return self.asked.write(context, int(wanted.get('max_gen_toks') or WRITTEN), [until] if isinstance(until, str) else until,
                            temperature)
