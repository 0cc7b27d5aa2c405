"""Name maps: which published tensors each of our parameters is made of, and how. Used for reading and writing.

    Rule('layers/attention/out/weight', ('model.layers.{}.self_attn.o_proj.weight',), Out(attention))

A rule whose path begins with `layers/` is one for each layer; `{}` is its number.
"""

from dataclasses import dataclass

from model.config import Decoder, Gated, LayerNorm, MoE
from model.weights.layout import Experts, Gates, Heads, InputMajor, Joined, Layout, Out, PerHead, Same, Turned


@dataclass(frozen=True)
class Rule:
  """Our parameter, by its path in the tree, and their tensors in the order that the layout wants."""

  ours: str
  theirs: tuple[str, ...]
  layout: Layout = Same()

  @property
  def layered(self) -> bool:
    return self.ours.startswith('layers/')


Rules = tuple[Rule, ...]

NORMS = {                         # ours -> theirs, by the placement of norms
  'pre': {'attention_norm': 'input_layernorm', 'mlp_norm': 'post_attention_layernorm'},
  'sandwich': {'attention_norm': 'input_layernorm', 'attention_out_norm': 'post_attention_layernorm',
               'mlp_norm': 'pre_feedforward_layernorm', 'mlp_out_norm': 'post_feedforward_layernorm'},
  'output': {'attention_out_norm': 'post_attention_layernorm', 'mlp_out_norm': 'post_feedforward_layernorm'},
}


def norm(config: Decoder, ours: str, theirs: str) -> Rules:
  """The scale of a norm, and its bias where it has one."""
  bias = (Rule(f'{ours}/bias', (f'{theirs}.bias',)),) if isinstance(config.norm, LayerNorm) and config.norm.bias else ()
  return (Rule(f'{ours}/scale', (f'{theirs}.weight',)), *bias)


def llama(config: Decoder) -> Rules:
  """Llama and all that are named like it."""
  layer = 'model.layers.{}.'
  norms = [rule for ours, theirs in NORMS[config.placement].items() for rule in norm(config, f'layers/{ours}', layer + theirs)]
  return (*ends(config, 'model.embed_tokens', 'model.norm'), *norms, *projections(config, f'{layer}self_attn.'),
          *mlp(config, f'{layer}mlp.'))


def ends(config: Decoder, embedding: str, last: str, end: str = 'lm_head') -> Rules:
  """What comes before and after the layers. A tied head is not there twice."""
  head = () if config.tied else (Rule('head/weight', (f'{end}.weight',), Turned()),)
  return (Rule('embedding/table', (f'{embedding}.weight',)), *norm(config, 'norm', last), *head)


def projections(config: Decoder, at: str) -> Rules:
  """Queries, keys and values apart, the output, and norms of q and k."""
  heads = config.attention
  parts, out = tuple(f'{at}{part}_proj' for part in 'qkv'), f'{at}o_proj'
  ours = 'layers/attention/'
  rules = [Rule(f'{ours}qkv/weight', tuple(f'{part}.weight' for part in parts), Heads(heads)),
           Rule(f'{ours}out/weight', (f'{out}.weight',), Out(heads))]
  if heads.qkv_bias:
    rules.append(Rule(f'{ours}qkv/bias', tuple(f'{part}.bias' for part in parts), Heads(heads)))
  if heads.out_bias:
    rules.append(Rule(f'{ours}out/bias', (f'{out}.bias',)))
  if heads.qk_norm is not None:
    rules += [Rule(f'{ours}{part}_norm/scale', (f'{at}{part}_norm.weight',)) for part in 'qk']
  return tuple(rules)


def mlp(config: Decoder, at: str) -> Rules:
  """gate, up and down; or those of each expert and a router."""
  if isinstance(config.mlp, MoE):
    return experts(config.mlp, f'{at}gate.weight', f'{at}experts.{{{{}}}}.', ('gate_proj', 'up_proj', 'down_proj'))
  biases = (Rule('layers/mlp/up/bias', (f'{at}gate_proj.bias', f'{at}up_proj.bias'), Gates()),
            Rule('layers/mlp/down/bias', (f'{at}down_proj.bias',))) if config.mlp.bias else ()
  return (Rule('layers/mlp/up/weight', (f'{at}gate_proj.weight', f'{at}up_proj.weight'), Gates()),
          Rule('layers/mlp/down/weight', (f'{at}down_proj.weight',), Turned()), *biases)


def experts(moe: MoE, router: str, each: str, parts: tuple[str, str, str]) -> Rules:
  """`each` is how an expert's tensors begin, with {{}} for its number; `parts` are its gate, up and down."""
  gate, up, down = parts
  numbered = [each.replace('{{}}', str(number)) for number in range(moe.experts)]
  gates, downs = (tuple(f'{at}{part}.weight' for at in numbered for part in both) for both in ((gate, up), (down,)))
  return (Rule('layers/mlp/router', (router,), Turned()), Rule('layers/mlp/up', gates, Experts(Gates(), moe.experts)),
          Rule('layers/mlp/down', downs, Experts(Turned(), moe.experts)))


def mixtral(config: Decoder) -> Rules:
  """Llama with experts under other names."""
  assert isinstance(config.mlp, MoE)
  at = 'model.layers.{}.block_sparse_moe.'
  rest = tuple(rule for rule in llama(config) if not rule.ours.startswith('layers/mlp/'))
  return (*rest, *experts(config.mlp, f'{at}gate.weight', f'{at}experts.{{{{}}}}.', ('w1', 'w3', 'w2')))


def phi3(config: Decoder) -> Rules:
  """Llama with q, k, v in one tensor, and gate and up in another."""
  assert isinstance(config.mlp, Gated)
  heads, layer = config.attention, 'model.layers.{}.'
  size, hidden = heads.head_size, config.mlp.hidden
  fused = {'layers/attention/qkv/weight': (f'{layer}self_attn.qkv_proj.weight',
                                           (heads.heads * size, heads.kv_heads * size, heads.kv_heads * size)),
           'layers/mlp/up/weight': (f'{layer}mlp.gate_up_proj.weight', (hidden, hidden))}
  return tuple(Rule(rule.ours, (fused[rule.ours][0],), Joined(rule.layout, fused[rule.ours][1])) if rule.ours in fused else rule
               for rule in llama(config))


def gpt2(config: Decoder) -> Rules:
  """GPT-2: matrices are [in, out], and q, k, v lie side by side."""
  heads, layer = config.attention, 'transformer.h.{}.'
  size = heads.heads * heads.head_size
  third = (size, size, size)
  return (
    *ends(config, 'transformer.wte', 'transformer.ln_f'), Rule('positions/table', ('transformer.wpe.weight',)),
    *norm(config, 'layers/attention_norm', f'{layer}ln_1'), *norm(config, 'layers/mlp_norm', f'{layer}ln_2'),
    Rule('layers/attention/qkv/weight', (f'{layer}attn.c_attn.weight',), InputMajor(Joined(Heads(heads), third))),
    Rule('layers/attention/qkv/bias', (f'{layer}attn.c_attn.bias',), Joined(Heads(heads), third)),
    Rule('layers/attention/out/weight', (f'{layer}attn.c_proj.weight',), InputMajor(Out(heads))),
    Rule('layers/attention/out/bias', (f'{layer}attn.c_proj.bias',)),
    Rule('layers/mlp/up/weight', (f'{layer}mlp.c_fc.weight',)), Rule('layers/mlp/up/bias', (f'{layer}mlp.c_fc.bias',)),
    Rule('layers/mlp/down/weight', (f'{layer}mlp.c_proj.weight',)), Rule('layers/mlp/down/bias', (f'{layer}mlp.c_proj.bias',)))


def neox(config: Decoder) -> Rules:
  """GPT-NeoX and Pythia: q, k and v of each head lie side by side, and biases are everywhere but in the head."""
  heads, layer = config.attention, 'gpt_neox.layers.{}.'
  attention, mlp, ours = f'{layer}attention.', f'{layer}mlp.dense_', 'layers/attention/'
  biases = (Rule(f'{ours}qkv/bias', (f'{attention}query_key_value.bias',), PerHead(Heads(heads))),
            Rule(f'{ours}out/bias', (f'{attention}dense.bias',))) if heads.qkv_bias else ()
  return (
    *ends(config, 'gpt_neox.embed_in', 'gpt_neox.final_layer_norm', 'embed_out'), *biases,
    *(rule for name, theirs in NORMS['pre'].items() for rule in norm(config, f'layers/{name}', layer + theirs)),
    Rule(f'{ours}qkv/weight', (f'{attention}query_key_value.weight',), PerHead(Heads(heads))),
    Rule(f'{ours}out/weight', (f'{attention}dense.weight',), Out(heads)),
    Rule('layers/mlp/up/weight', (f'{mlp}h_to_4h.weight',), Turned()), Rule('layers/mlp/up/bias', (f'{mlp}h_to_4h.bias',)),
    Rule('layers/mlp/down/weight', (f'{mlp}4h_to_h.weight',), Turned()), Rule('layers/mlp/down/bias', (f'{mlp}4h_to_h.bias',)))
