"""Makes the fixtures of published weights, with transformers: `.venv-peers-hf/bin/python -m tests.peers.published`.

For each family a tiny model of random numbers with every switch of the family on, saved as its makers save it, and the logits
that it gives in float32 (of encoders without a head: the last hidden states): `config.json`, `model.safetensors` and
`expected.npz` in tests/model/weights/fixtures/<family>/. Rows are longer than every window. Of encoders with two types of
tokens also what they give with these.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import transformers

FOLDER = Path(__file__).resolve().parents[1] / 'model' / 'weights' / 'fixtures'
LENGTH = 24
COMMON = {'vocab_size': 64, 'hidden_size': 32, 'num_hidden_layers': 2, 'num_attention_heads': 4, 'num_key_value_heads': 2,
          'intermediate_size': 48, 'max_position_embeddings': 64, 'initializer_range': 0.4, 'bos_token_id': 1,
          'eos_token_id': 2, 'pad_token_id': 0}
YARN = {'rope_type': 'yarn', 'factor': 4.0, 'original_max_position_embeddings': 16, 'rope_theta': 5e4}
LLAMA3 = {'rope_type': 'llama3', 'factor': 8.0, 'low_freq_factor': 1.0, 'high_freq_factor': 4.0, 'rope_theta': 5e5,
          'original_max_position_embeddings': 16}
LAYERS = ['sliding_attention', 'full_attention'] * 2
SWITCHES = {
  'llama': ('Llama', {'tie_word_embeddings': False, 'rms_norm_eps': 1e-5}),
  'llama3': ('Llama', {'tie_word_embeddings': True, 'rope_parameters': LLAMA3, 'head_dim': 16, 'attention_bias': True,
                       'mlp_bias': True}),
  'mistral': ('Mistral', {'sliding_window': 5, 'head_dim': 16}),
  'qwen2': ('Qwen2', {'num_hidden_layers': 4, 'use_sliding_window': True, 'sliding_window': 6, 'layer_types': LAYERS,
                      'tie_word_embeddings': True, 'rope_parameters': YARN}),
  'qwen3': ('Qwen3', {'head_dim': 16, 'tie_word_embeddings': False}),
  'gemma': ('Gemma', {'head_dim': 16, 'num_key_value_heads': 1}),
  'gemma2': ('Gemma2', {'num_hidden_layers': 4, 'head_dim': 16, 'sliding_window': 5, 'query_pre_attn_scalar': 24,
                        'attn_logit_softcapping': 5.0, 'final_logit_softcapping': 3.0}),
  'gemma3': ('Gemma3Text', {'num_hidden_layers': 4, 'head_dim': 16, 'sliding_window': 5, 'layer_types': LAYERS,
                            'query_pre_attn_scalar': 24, 'rope_parameters': {
                              'full_attention': {'rope_type': 'linear', 'factor': 8.0, 'rope_theta': 1e6},
                              'sliding_attention': {'rope_type': 'default', 'rope_theta': 1e4}}}),
  'mixtral': ('Mixtral', {'num_local_experts': 4, 'num_experts_per_tok': 2, 'sliding_window': 5}),
  'qwen3_moe': ('Qwen3Moe', {'num_experts': 4, 'num_experts_per_tok': 2, 'moe_intermediate_size': 24, 'head_dim': 16,
                             'norm_topk_prob': True}),
  'phi3': ('Phi3', {'sliding_window': 5, 'partial_rotary_factor': 0.5}),
  'olmo2': ('Olmo2', {'rms_norm_eps': 1e-5, 'attention_bias': True}),
  'olmoe': ('Olmoe', {'num_experts': 4, 'num_experts_per_tok': 2}),
  'smollm3': ('SmolLM3', {'num_hidden_layers': 4, 'no_rope_layer_interval': 2, 'use_sliding_window': True, 'sliding_window': 5,
                          'head_dim': 16, 'attention_bias': True, 'mlp_bias': True}),
  'gpt_neox': ('GPTNeoX', {'hidden_act': 'gelu', 'rope_parameters': {'rope_type': 'default', 'rope_theta': 2e4,
                                                                     'partial_rotary_factor': 0.5}}),
  'bert': ('Bert', {'hidden_act': 'gelu', 'layer_norm_eps': 1e-12}),
  'minilm': ('Bert', {'hidden_act': 'gelu', 'layer_norm_eps': 1e-12}),
  'roberta': ('Roberta', {'hidden_act': 'gelu', 'type_vocab_size': 1, 'bos_token_id': 0, 'pad_token_id': 1}),
  'modernbert': ('ModernBert', {'num_hidden_layers': 5, 'local_attention': 6, 'global_attn_every_n_layers': 3}),
  'modernbert_biased': ('ModernBert', {'num_hidden_layers': 4, 'local_attention': 4, 'global_attn_every_n_layers': 2,
                                       'norm_bias': True, 'attention_bias': True, 'mlp_bias': True, 'classifier_bias': True,
                                       'classifier_activation': 'silu', 'hidden_activation': 'gelu_pytorch_tanh',
                                       'global_rope_theta': 5e4, 'local_rope_theta': 500.0}),
  'modernbert_bare': ('ModernBert', {'num_hidden_layers': 3, 'local_attention': 6}),
  'gpt2': ('GPT2', {'n_embd': 32, 'n_layer': 2, 'n_head': 4, 'n_positions': 64, 'n_inner': 40}),
}
OWN = {'gpt2': ('vocab_size', 'initializer_range', 'bos_token_id', 'eos_token_id', 'pad_token_id'),      # of what is common
       **dict.fromkeys(('gpt_neox', 'bert', 'minilm', 'roberta', 'modernbert', 'modernbert_biased', 'modernbert_bare'),
                       tuple(field for field in COMMON if field != 'num_key_value_heads'))}
CLASSES = {'gpt2': 'GPT2LMHeadModel', 'gemma3': 'Gemma3ForCausalLM', 'bert': 'BertForMaskedLM', 'minilm': 'BertModel',
           'roberta': 'RobertaForMaskedLM', 'modernbert': 'ModernBertForMaskedLM',
           'modernbert_biased': 'ModernBertForMaskedLM', 'modernbert_bare': 'ModernBertModel'}


def model(name: str):
  """A model whose numbers are as they might be after training: no bias is 0, no norm is 1."""
  kind, switches = SWITCHES[name]
  common = {field: value for field, value in COMMON.items() if field in OWN.get(name, COMMON)}
  config = getattr(transformers, f'{kind}Config')(**(common | switches), attn_implementation='eager')
  torch.manual_seed(0)
  found = getattr(transformers, CLASSES.get(name, f'{kind}ForCausalLM'))(config)
  with torch.no_grad():
    for parameter in found.parameters():
      if parameter.ndim == 1:
        parameter += 0.1 * torch.randn_like(parameter)
  return found.eval().float()


def given(made, tokens: np.ndarray, **more) -> np.ndarray:
  """f32[B, L, V or D]."""
  with torch.no_grad():
    found = made(torch.tensor(tokens), **more)
  return (found.logits if hasattr(found, 'logits') else found.last_hidden_state).numpy()


def main(names: list[str]) -> None:
  for name in names or SWITCHES:
    folder, made = FOLDER / name, model(name)
    made.save_pretrained(folder)
    (folder / 'generation_config.json').unlink(missing_ok=True)
    tokens = np.random.default_rng(0).integers(3, 64, (2, LENGTH))
    logits, more = given(made, tokens), {}
    if getattr(made.config, 'type_vocab_size', 1) > 1:
      types = np.random.default_rng(1).integers(0, made.config.type_vocab_size, tokens.shape)
      more = {'types': types.astype(np.int32), 'typed': given(made, tokens, token_type_ids=torch.tensor(types))}
    np.savez_compressed(folder / 'expected.npz', tokens=tokens.astype(np.int32), logits=logits, **more)
    print(name, sorted(path.name for path in folder.iterdir()), f'{np.abs(logits).max():.2f}')


if __name__ == '__main__':
  main(sys.argv[1:])
