"""What the contestants of the training benchmarks do, as plain numbers that any environment can import.

On a CPU the Llama-style model of 10.5 million parameters: no published size is small enough to take turns with its peers
on two cores. On a GPU the shapes of GPT-2 124M and of a model of 0.95 billion. `LOSSES` says how far the curves may differ;
a wrong rotation or a shifted target moves them a hundred times that.
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
  burst: int = 1                       # steps of a sample: none waits for the one before, as in a training

  @property
  def tokens(self) -> int:
    """Tokens a step."""
    return self.batch * self.length

  @property
  def prompt(self) -> int:
    """Tokens of a row that are read and not learnt, where a row is a prompt and its answer."""
    return self.length // 2

  @property
  def pairs(self) -> int:
    """Pairs a step, of two rows each."""
    return self.batch // 2

  @property
  def flops(self) -> float:
    """Of a step: 6 for each parameter but the input embedding, and causal attention at half."""
    layer = 4 * self.width ** 2 + 3 * self.width * self.hidden + 2 * self.width
    active = self.layers * layer + self.width + self.vocab * self.width
    return self.tokens * 6.0 * (active + self.layers * self.length * self.width)


@dataclass(frozen=True)
class Iteration:
  """Answers that are sampled, judged and learnt from once: every prompt and every answer has the same number of tokens."""

  asked: int = 8                       # questions
  group: int = 4                       # answers to each
  prompt: int = 64
  answer: int = 64
  batch: int = 16                      # answers a step

  @property
  def answers(self) -> int:
    return self.asked * self.group

  @property
  def tokens(self) -> int:
    """Tokens that are sampled."""
    return self.answers * self.answer


@dataclass(frozen=True)
class Writing:
  """Answers that are written greedily by the model of a task: all prompts and all answers have the same number of tokens."""

  task: str
  rows: int
  prompt: int = 128
  answer: int = 128


TASKS = {
  '10m': Task(),
  '124m': Task(vocab=50_304, width=768, layers=12, heads=12, hidden=2048, length=2048, batch=16, lr=3e-4, burst=8),
  '1b': Task(vocab=32_000, width=2048, layers=16, heads=32, hidden=5632, length=2048, batch=4, lr=1e-4, burst=8),
  'head': Task(vocab=32_000, width=2048, length=2048),       # of which the loss head alone is taken: 16,384 tokens
  'tiny': Task(vocab=512, width=64, layers=2, heads=2, hidden=176, length=64, batch=4, burst=2),
}
TASK = TASKS['10m']                                     # on the CPU
ITERATIONS = {'10m': Iteration(), 'tiny': Iteration(asked=2, prompt=16, answer=16, batch=4)}
WRITTEN = {'1b': [Writing('1b', 1), Writing('1b', 64)], 'tiny': [Writing('tiny', 1, 16, 16), Writing('tiny', 4, 16, 16)]}
BETA = 0.1                                              # of DPO
WARM = 3                                                # steps before any is timed, whose losses are compared
LOSSES = {'float32': 2e-3, 'bfloat16': 2e-2}            # nats, between ours and a peer at every step
BATCHES, INITIAL = 'batches.npy', 'initial.safetensors'
PAIRS, ROLLOUTS = 'pairs.npz', 'rollouts.npz'
PROMPTS, THEIRS, GGUF = 'prompts.json', 'theirs', 'theirs.gguf'    # of decoding: ids, and the model as its peers read it
PROMPTED, DECODED = 16, 32                      # tokens that are read and written
