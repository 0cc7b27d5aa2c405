"""ModernBERT (Warner et al. 2024): its config.json as a `Decoder` that sees both ways, and from one; its names.

Pre-norm blocks without biases, gated MLPs and rotary positions as in decoders; most layers see `local_attention` // 2 tokens to
each side and turn with a base of their own. The first attention reads the normed embeddings without another norm.
"""

import re
from dataclasses import replace

from model.config import Attention, Decoder, Gated, LayerNorm, Normed, Rotary, Transformed, Window
from model.weights.layout import Gates, Heads, Joined, Out, Turned
from model.weights.names import Rule, Rules, norm
from model.weights.positions import rotary, told, window
from model.weights.said import WRITTEN, Fields, Said, Unlike, activation, only

HEAD = re.compile(r'(head\.(dense|norm)|decoder)\.(weight|bias)')        # in files of one with a head


def modernbert(said: Said) -> Decoder:
  """ModernBERT without a head."""
  width, heads, bias = said.get('hidden_size', int), said.count('num_attention_heads'), said.get('attention_bias', bool, False)
  mlp = Gated(said.get('intermediate_size', int), activation(said.or_else(hidden_activation='gelu'), 'hidden_activation'),
              said.get('mlp_bias', bool, False))
  return Decoder(said.get('vocab_size', int), width, said.count('num_hidden_layers'),
                 Attention(heads, heads, width // heads, bias, bias, window=_window(said)), mlp,
                 LayerNorm(said.get('norm_eps', float, 1e-5), said.get('norm_bias', bool, False)), 'pre_but_first',
                 _positions(said), causal=False, embedding=Normed())


def masked_modernbert(said: Said) -> Decoder:
  """ModernBERT with its head, whose matrix is the embedding table."""
  said.must('tie_word_embeddings', True)
  kind = activation(said.or_else(classifier_activation='gelu'), 'classifier_activation')
  head = Transformed(kind, said.get('classifier_bias', bool, False), said.get('decoder_bias', bool, True))
  return replace(modernbert(said), head=head)


def _window(said: Said) -> Window | None:
  """The window of local layers: of as many tokens to each side as half of `local_attention`, and the token itself."""
  every, side = said.count('global_attn_every_n_layers', 3), said.count('local_attention', 128) // 2
  said.must('sliding_window', side)
  kinds = tuple('sliding_attention' if i % every else 'full_attention' for i in range(said.count('num_hidden_layers')))
  return window(Said(said.where, said.fields | {'sliding_window': side + 1}), kinds)


def _positions(said: Said) -> Rotary:
  """The base of global layers, and that of local ones: as transformers 5 says them, or as 4 did."""
  said.must('rope_scaling')
  whole = said.part('rope_parameters')
  wide = whole.part('full_attention').or_else(rope_theta=said.get('global_rope_theta', float, 160_000.0))
  positions = rotary(Said(wide.where, {'rope_parameters': wide.fields}))
  otherwise = positions.theta if 'local_rope_theta' in said.fields else 10_000.0           # null meant the same base in 4
  near = whole.part('sliding_attention').or_else(rope_theta=said.get('local_rope_theta', float, otherwise))
  near.must('rope_type', 'default')
  return replace(positions, local_theta=near.get('rope_theta', float))


def write_modernbert(config: Decoder) -> Fields:
  positions, mlp, norm = only(config.positions, Rotary), only(config.mlp, Gated), only(config.norm, LayerNorm)
  seen, local = config.attention.window or Window(1, ('global',)), positions.local_theta or positions.theta
  if seen.size < 2 and 'local' in seen.pattern:
    raise Unlike
  kinds = [seen.pattern[i % len(seen.pattern)] for i in range(config.layers)]
  fields: Fields = {
    'hidden_size': config.width, 'num_hidden_layers': config.layers, 'num_attention_heads': config.attention.heads,
    'intermediate_size': mlp.hidden, 'hidden_activation': WRITTEN[mlp.activation], 'mlp_bias': mlp.bias,
    'norm_eps': norm.eps, 'norm_bias': norm.bias, 'attention_bias': config.attention.out_bias, 'vocab_size': config.vocab,
    'local_attention': max(2 * (seen.size - 1), 2), 'max_position_embeddings': 8192, 'tie_word_embeddings': config.tied,
    'layer_types': [{'local': 'sliding_attention', 'global': 'full_attention'}[kind] for kind in kinds],
    'rope_parameters': {'full_attention': told(replace(positions, local_theta=None)),
                        'sliding_attention': {'rope_theta': local, 'rope_type': 'default'}}}
  if config.head is not None:
    fields |= {'classifier_activation': WRITTEN[config.head.activation], 'classifier_bias': config.head.dense_bias,
               'decoder_bias': config.head.logit_bias}
  return fields


def body(config: Decoder, at: str = '') -> Rules:
  """All but the head; `at` is what their names begin with."""
  heads, layer, ours = config.attention, f'{at}layers.{{}}.', 'layers/attention/'
  third, mlp = heads.heads * heads.head_size, only(config.mlp, Gated)
  biases = (Rule(f'{ours}qkv/bias', (f'{layer}attn.Wqkv.bias',), Joined(Heads(heads), (third,) * 3)),
            Rule(f'{ours}out/bias', (f'{layer}attn.Wo.bias',))) if heads.out_bias else ()
  more = (Rule('layers/mlp/up/bias', (f'{layer}mlp.Wi.bias',), Joined(Gates(), (mlp.hidden,) * 2)),
          Rule('layers/mlp/down/bias', (f'{layer}mlp.Wo.bias',))) if mlp.bias else ()
  return (
    Rule('embedding/table', (f'{at}embeddings.tok_embeddings.weight',)),
    *norm(config, 'embedding_norm', f'{at}embeddings.norm'), *biases,
    *norm(config, 'layers/attention_norm', f'{layer}attn_norm'),
    Rule(f'{ours}qkv/weight', (f'{layer}attn.Wqkv.weight',), Joined(Heads(heads), (third,) * 3)),
    Rule(f'{ours}out/weight', (f'{layer}attn.Wo.weight',), Out(heads)),
    *norm(config, 'layers/mlp_norm', f'{layer}mlp_norm'), *more,
    Rule('layers/mlp/up/weight', (f'{layer}mlp.Wi.weight',), Joined(Gates(), (mlp.hidden,) * 2)),
    Rule('layers/mlp/down/weight', (f'{layer}mlp.Wo.weight',), Turned()), *norm(config, 'norm', f'{at}final_norm'))


def masked(config: Decoder) -> Rules:
  """The body, and the head."""
  head = only(config.head, Transformed)
  biases = [Rule('transform/dense/bias', ('head.dense.bias',))] * head.dense_bias
  biases += [Rule('transform/bias', ('decoder.bias',))] * head.logit_bias
  return (*body(config, 'model.'), Rule('transform/dense/weight', ('head.dense.weight',), Turned()), *biases,
          *norm(config, 'transform/norm', 'head.norm'))
