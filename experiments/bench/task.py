"""What every contestant of the training benchmark does, as plain numbers that any environment can import.

The Llama-style model of 10.5 million parameters: no published size is small enough to take turns with its peers on two
cores. `LOSSES` says how far the curves may differ; a wrong rotation or a shifted target moves them a hundred times that.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
  """The model, the batch and the optimizer."""

  vocab: int = 8192
  width: int = 256
  layers: int = 8
  heads: int = 8
  hidden: int = 688
  eps: float = 1e-5
  theta: float = 10_000.0
  length: int = 512
  batch: int = 8
  lr: float = 1e-3
  b1: float = 0.9
  b2: float = 0.95
  adam_eps: float = 1e-8
  weight_decay: float = 0.1            # of matrices and head, not of the embedding and the norms
  clip: float = 1.0

  @property
  def tokens(self) -> int:
    """Tokens a step."""
    return self.batch * self.length

  @property
  def flops(self) -> float:
    """Of a step: 6 for each parameter but the input embedding, and causal attention at half."""
    layer = 4 * self.width ** 2 + 3 * self.width * self.hidden + 2 * self.width
    active = self.layers * layer + self.width + self.vocab * self.width
    return self.tokens * 6.0 * (active + self.layers * self.length * self.width)


TASK = Task()
WARM = 3                                                # steps before any is timed, whose losses are compared
LOSSES = {'float32': 2e-3, 'bfloat16': 2e-2}            # nats, between ours and a peer at every step
BATCHES, INITIAL = 'batches.npy', 'initial.safetensors'
