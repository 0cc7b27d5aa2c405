"""The config.json of GPT-2 and of GPT-NeoX, which name nothing as Llama does: as a `Decoder`, and from one."""

from dataclasses import replace

from model.config import Attention, Decoder, LayerNorm, Learned, Plain, Rotary
from model.weights.positions import partial, rotary, told
from model.weights.said import WRITTEN, Fields, Said, activation, only


def gpt2(said: Said) -> Decoder:
  """Radford et al. 2019."""
  said.must('scale_attn_weights', True)
  said.must('scale_attn_by_inverse_layer_idx', False)
  said.must('add_cross_attention', False)
  width, heads = said.get('n_embd', int), said.count('n_head')
  attention = Attention(heads, heads, width // heads, qkv_bias=True, out_bias=True)
  mlp = Plain(said.get('n_inner', int, 4 * width), activation(said, 'activation_function'), bias=True)
  return Decoder(said.get('vocab_size', int), width, said.get('n_layer', int), attention, mlp,
                 LayerNorm(said.get('layer_norm_epsilon', float, 1e-5)), positions=Learned(said.get('n_positions', int)),
                 tied=said.get('tie_word_embeddings', bool, True))


def write_gpt2(config: Decoder) -> Fields:
  positions, mlp = only(config.positions, Learned), only(config.mlp, Plain)
  return {'n_embd': config.width, 'n_head': config.attention.heads, 'n_layer': config.layers, 'n_inner': mlp.hidden,
          'n_positions': positions.length, 'vocab_size': config.vocab, 'layer_norm_epsilon': config.norm.eps,
          'activation_function': 'gelu_new' if mlp.activation == 'gelu_tanh' else WRITTEN[mlp.activation],
          'tie_word_embeddings': config.tied}


def neox(said: Said) -> Decoder:
  """GPT-NeoX 20B and Pythia (Black et al. 2022, Biderman et al. 2023)."""
  whole, fraction = partial(said, said.get('rotary_pct', float, 0.25))
  base = said.get('rotary_emb_base', float, said.get('rope_theta', float, 10_000.0))
  positions = rotary(Said(said.where, whole.fields | {'rope_theta': base}))
  width, heads = said.get('hidden_size', int), said.count('num_attention_heads')
  biased, parallel = said.get('attention_bias', bool, True), said.get('use_parallel_residual', bool, True)
  mlp = Plain(said.get('intermediate_size', int), activation(said.or_else(hidden_act='gelu'), 'hidden_act'), bias=True)
  return Decoder(said.get('vocab_size', int), width, said.get('num_hidden_layers', int),
                 Attention(heads, heads, width // heads, biased, biased), mlp,
                 LayerNorm(said.get('layer_norm_eps', float, 1e-5)), 'parallel' if parallel else 'pre',
                 replace(positions, fraction=fraction), tied=said.get('tie_word_embeddings', bool, False))


def write_neox(config: Decoder) -> Fields:
  positions, mlp = only(config.positions, Rotary), only(config.mlp, Plain)
  return {'hidden_size': config.width, 'num_hidden_layers': config.layers, 'num_attention_heads': config.attention.heads,
          'intermediate_size': mlp.hidden, 'hidden_act': WRITTEN[mlp.activation], 'layer_norm_eps': config.norm.eps,
          'vocab_size': config.vocab, 'tie_word_embeddings': config.tied, 'attention_bias': config.attention.out_bias,
          'use_parallel_residual': config.placement == 'parallel', 'max_position_embeddings': 131_072,
          'rope_parameters': told(positions), 'rotary_pct': positions.fraction, 'rotary_emb_base': positions.theta}
