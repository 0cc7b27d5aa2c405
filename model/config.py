"""The config of a model: what the network is (`Decoder`), and how it is computed (`Compute`).

Published families are points of this space: GPT-2 is LayerNorm + Learned + Plain('gelu_tanh') + biases; Llama is
RMSNorm + Rotary + Gated('silu'); Gemma 2 adds sandwich norms, soft caps and a window pattern; Mixtral swaps in a MoE;
OLMo 2 normalises what comes out, and q and k over all heads; Pythia runs attention and MLP side by side. BERT is GPT-2 that
sees both ways with 'post' norms, Typed embeddings and a Transformed head; ModernBERT is Llama that sees both ways with the
head of BERT and Normed embeddings, which its first attention reads as they are.
"""

import dataclasses
from dataclasses import dataclass
from typing import Literal

import jax

from model.errors import demand, positive

Activation = Literal['silu', 'gelu', 'gelu_tanh', 'relu', 'relu2']
Dtype = Literal['float32', 'bfloat16']


@dataclass(frozen=True)
class RMSNorm:
  """x / rms(x) * (weight + offset), in float32. Zhang and Sennrich 2019. Gemma stores its weights with offset 1."""

  eps: float = 1e-5
  offset: float = 0.0

  def __post_init__(self):
    positive(self, 'eps')


@dataclass(frozen=True)
class AllHeads(RMSNorm):
  """RMSNorm over all heads of q, or of k, as one vector of heads * head_size numbers. OLMo 2 (OLMo et al. 2024)."""


@dataclass(frozen=True)
class LayerNorm:
  """(x - mean) / deviation * weight (+ bias), in float32. Ba et al. 2016."""

  eps: float = 1e-5
  bias: bool = True

  def __post_init__(self):
    positive(self, 'eps')


@dataclass(frozen=True)
class Linear:
  """Rotary angles of position / factor. Chen et al. 2023."""

  factor: float

  def __post_init__(self):
    positive(self, 'factor')


@dataclass(frozen=True)
class Llama3:
  """Low frequencies slowed by `factor`, high ones kept, a ramp between them. Llama 3.1."""

  factor: float = 8.0
  low: float = 1.0                  # turns within `original` positions, at and below which a frequency is slowed
  high: float = 4.0                 # ... and above which it is kept
  original: int = 8192              # positions that the model was first trained with

  def __post_init__(self):
    positive(self, 'factor', 'low', 'original')
    demand(self.high > self.low, 'Llama3.high', self.high, f'it must be above low = {self.low}', 'raise high')


@dataclass(frozen=True)
class YaRN:
  """A ramp over dimensions between kept and slowed frequencies, and softer attention. Peng et al. 2023."""

  factor: float = 4.0
  original: int = 4096
  fast: float = 32.0
  slow: float = 1.0

  def __post_init__(self):
    positive(self, 'factor', 'original', 'slow')
    demand(self.fast > self.slow, 'YaRN.fast', self.fast, f'it must be above slow = {self.slow}', 'raise fast')


@dataclass(frozen=True)
class Rotary:
  """Rotary positions: pairs (i, i + R/2) of the first R = fraction * head_size numbers of each q and k are rotated.

  Scalings that depend on the length seen so far ("dynamic") are left out: a cache would hold keys of another base.
  """

  theta: float = 10_000.0
  fraction: float = 1.0
  scaling: Linear | Llama3 | YaRN | None = None
  local_theta: float | None = None  # the base of windowed layers, unscaled; None: as the others
  # Which layers are rotated, repeated over them: the 'still' ones have no positions but the causal mask (RNoPE, Yang et al.
  # 2025). At its default this field is left out of digests (train.canonical.added).
  pattern: tuple[Literal['turned', 'still'], ...] = dataclasses.field(default=('turned',), metadata={'added': True})

  def __post_init__(self):
    positive(self, 'theta', 'local_theta')
    demand(0 < self.fraction <= 1, 'Rotary.fraction', self.fraction, 'it is a share of the head', 'use 0 < it <= 1')
    demand(bool(self.pattern), 'Rotary.pattern', self.pattern, 'it names the layers in turn', "use ('turned', 'still')")


@dataclass(frozen=True)
class Learned:
  """A table of `length` learned vectors, one a position, added to the embedding.

  RoBERTa's documents begin at `first`, the id of padding and one more: no token has the vectors before it.
  """

  length: int
  first: int = dataclasses.field(default=0, metadata={'added': True})

  def __post_init__(self):
    positive(self, 'length')
    demand(0 <= self.first < self.length, 'Learned.first', self.first, f'the table has {self.length} entries', 'lower it')


@dataclass(frozen=True)
class NoPositions:
  """Order is known from the causal mask alone."""


@dataclass(frozen=True)
class Window:
  """Local layers see the last `size` tokens, the current one among them. `pattern` repeats over the layers."""

  size: int
  pattern: tuple[Literal['local', 'global'], ...] = ('local',)

  def __post_init__(self):
    positive(self, 'size')
    demand(bool(self.pattern), 'Window.pattern', self.pattern, 'it names the layers in turn', "use ('local', 'global')")


@dataclass(frozen=True)
class Attention:
  """Grouped-query attention: `kv_heads` keys and values serve `heads` queries. Ainslie et al. 2023."""

  heads: int
  kv_heads: int
  head_size: int
  qkv_bias: bool = False
  out_bias: bool = False
  qk_norm: RMSNorm | AllHeads | None = None     # before the rotation; an RMSNorm is over each head
  scale: float | None = None        # of the scores; None: 1 / sqrt(head_size), or as muP has it
  softcap: float | None = None      # scores become cap * tanh(scores / cap), before the mask
  window: Window | None = None

  def __post_init__(self):
    positive(self, 'heads', 'kv_heads', 'head_size', 'scale', 'softcap')
    valid = [g for g in range(1, self.heads + 1) if self.heads % g == 0]
    demand(self.kv_heads in valid, 'Attention.kv_heads', self.kv_heads, f'it must divide heads = {self.heads}',
           f'use one of {", ".join(map(str, valid))}')


@dataclass(frozen=True)
class Gated:
  """down(activation(gate(x)) * up(x)), gate and up as one matmul. Shazeer 2020."""

  hidden: int
  activation: Activation = 'silu'
  bias: bool = False

  def __post_init__(self):
    positive(self, 'hidden')


@dataclass(frozen=True)
class Plain:
  """down(activation(up(x)))."""

  hidden: int
  activation: Activation = 'gelu_tanh'
  bias: bool = False

  def __post_init__(self):
    positive(self, 'hidden')


@dataclass(frozen=True)
class MoE:
  """Each token goes through its `top_k` best of `experts` MLPs; none is dropped. Fedus et al. 2021, Zoph et al. 2022.

  Gates are the softmax over all experts, or over the chosen ones if `renormalise` (the same as softmax after top-k).
  `balance` and `router_z` weigh the two penalties of `model.moe.losses`.
  """

  experts: int
  top_k: int
  expert: Gated | Plain
  renormalise: bool = True
  balance: float = 0.01
  router_z: float = 1e-3

  def __post_init__(self):
    positive(self, 'experts', 'top_k')
    demand(self.top_k <= self.experts, 'MoE.top_k', self.top_k, f'there are {self.experts} experts', 'lower top_k')
    demand(not self.expert.bias, 'MoE.expert.bias', True, 'experts are grouped matmuls without biases', 'leave it out')


@dataclass(frozen=True)
class MuP:
  """Maximal update parametrisation: what is tuned at `base_width` holds at every width. Yang et al. 2022, table 8.

  Matrices start at 1 / sqrt(fan in) and learn at base_width / width of the rate (`model.mup`); logits are multiplied by
  base_width / width; scores by sqrt(base_head_size) / head_size. At the base width nothing changes.
  """

  base_width: int = 256
  base_head_size: int = 64

  def __post_init__(self):
    positive(self, 'base_width', 'base_head_size')


@dataclass(frozen=True)
class Typed:
  """A learned vector for the type of each token is added to its embedding, then the sum is normed. Devlin et al. 2018.

  Types are 0 unless they are given: BERT's second of two sentences is of type 1.
  """

  types: int = 2

  def __post_init__(self):
    positive(self, 'types')


@dataclass(frozen=True)
class Normed:
  """The embedding of each token is normed before the first layer. Warner et al. 2024."""


@dataclass(frozen=True)
class Transformed:
  """norm(activation(dense(x))) comes before the head, which adds a bias to each logit. Devlin et al. 2018.

  Warner et al. 2024 leave the bias of the dense layer out.
  """

  activation: Activation = 'gelu'
  dense_bias: bool = dataclasses.field(default=True, metadata={'added': True})
  logit_bias: bool = dataclasses.field(default=True, metadata={'added': True})


Holding = Literal['int8']
Placement = Literal['pre', 'pre_but_first', 'post', 'sandwich', 'output', 'parallel']


@dataclass(frozen=True)
class Decoder:
  """A stack of blocks between an embedding and a head. With `causal=False` it is an encoder for masked LM."""

  vocab: int
  width: int
  layers: int
  attention: Attention
  mlp: Gated | Plain | MoE
  norm: RMSNorm | LayerNorm = RMSNorm()
  placement: Placement = 'pre'      # pre_but_first: the first attention reads the embeddings without a norm of its own
  positions: Rotary | Learned | NoPositions = Rotary()
  causal: bool = True
  tied: bool = True                 # the head is the embedding table
  embedding_scale: float = 1.0      # Gemma: sqrt(width)
  softcap: float | None = None      # logits become cap * tanh(logits / cap)
  compute_dtype: Dtype = 'float32'  # of the operands of matmuls
  stream_dtype: Dtype = 'float32'   # of what flows between blocks: bfloat16 pays on a GPU or TPU, not on a CPU
  param_dtype: Dtype = 'float32'
  mup: MuP | None = None
  # Both came later: at their defaults the digests of configs are those that they had before (train.canonical.added).
  embedding: Typed | Normed | None = dataclasses.field(default=None, metadata={'added': True})
  head: Transformed | None = dataclasses.field(default=None, metadata={'added': True})

  def __post_init__(self):
    positive(self, 'vocab', 'width', 'layers', 'embedding_scale', 'softcap')
    demand(not isinstance(self.norm, AllHeads), 'Decoder.norm', self.norm, 'what flows past has no heads', 'use RMSNorm')
    if isinstance(self.positions, Rotary):
      turned = self.positions.fraction * self.attention.head_size
      demand(turned >= 2 and turned % 2 == 0, 'Rotary.fraction * Attention.head_size', turned,
             'rotary positions turn pairs of numbers', 'make it an even whole number')


@dataclass(frozen=True)
class Compute:
  """How the same numbers are computed; no part of what a model is."""

  layers: Literal['auto', 'scan', 'unroll'] = 'auto'    # auto: scan from 16 layers on, on GPUs from 49 on (`scans`)
  remat: Literal['none', 'dots', 'full'] = 'none'       # kept for the backward: all; matmuls; the input of each block
  attention: Literal['auto', 'reference', 'few', 'blocked', 'cudnn', 'xla', 'hopper', 'triton', 'tpu'] = 'auto'
  # What a cache keeps of keys and values: None, all that the matmuls read. int8 is a half or a quarter of that.
  cache: Holding | None = dataclasses.field(default=None, metadata={'added': True})

  def scans(self, layers: int) -> bool:
    """Whether so many layers are one loop (True), which compiles faster, or written out (False): see `model.stack`."""
    return self.layers == 'scan' or (self.layers == 'auto' and layers >= (49 if jax.default_backend() == 'gpu' else 16))
