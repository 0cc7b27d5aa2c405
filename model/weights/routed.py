"""The config.json of models with experts in every layer: as a `Decoder`, and from one."""

from collections.abc import Callable
from dataclasses import replace

from model.config import Decoder, Gated, MoE
from model.weights.llamas import mistral, olmo, qwen3, write_llama, write_qwen2
from model.weights.said import Fields, Said, only


def routed(said: Said, config: Decoder, count: str, hidden: str, renormalise: bool) -> MoE:
  """The experts of a config."""
  expert = replace(only(config.mlp, Gated), hidden=said.get(hidden, int))
  experts, chosen = said.get(count, int, said.get('num_local_experts', int, 8)), said.get('num_experts_per_tok', int, 2)
  return MoE(experts, chosen, expert, renormalise, said.get('router_aux_loss_coef', float, 0.001), router_z=0.0)


def write_experts(config: Decoder, write: Callable[[Decoder], Fields], count: str, hidden: str) -> Fields:
  """What `write` says of a dense model, and what there is of experts."""
  moe = only(config.mlp, MoE)
  return write(replace(config, mlp=moe.expert)) | {
    count: moe.experts, 'num_experts_per_tok': moe.top_k, hidden: moe.expert.hidden, 'norm_topk_prob': moe.renormalise,
    'router_aux_loss_coef': moe.balance}


def mixtral(said: Said) -> Decoder:
  """Mistral with experts in the place of its MLP; a token's gates are made to sum to 1."""
  config = mistral(said)
  return replace(config, mlp=routed(said, config, 'num_local_experts', 'intermediate_size', True))


def write_mixtral(config: Decoder) -> Fields:
  return write_experts(config, write_llama, 'num_local_experts', 'intermediate_size')


def qwen3_moe(said: Said) -> Decoder:
  """Qwen 3 with experts in every layer, and a window in all of them or none."""
  said.must('decoder_sparse_step', 1)
  said.must('mlp_only_layers', [])
  config = qwen3(Said(said.where, said.fields | {'max_window_layers': 0}))
  renormalise = said.get('norm_topk_prob', bool, False)
  return replace(config, mlp=routed(said, config, 'num_experts', 'moe_intermediate_size', renormalise))


def write_qwen3_moe(config: Decoder) -> Fields:
  return write_experts(config, write_qwen2, 'num_experts', 'moe_intermediate_size')


def olmoe(said: Said) -> Decoder:
  """Llama with the norms of OLMo 2 on q and k, and experts in every layer."""
  said.must('clip_qkv')
  said.must('mlp_bias', False)
  said.must('head_dim', said.get('hidden_size', int) // said.count('num_attention_heads'))
  said = said.or_else(num_local_experts=64, num_experts_per_tok=8, router_aux_loss_coef=0.01)
  config, renormalise = olmo(said), said.get('norm_topk_prob', bool, False)
  return replace(config, mlp=routed(said, config, 'num_experts', 'intermediate_size', renormalise))


def write_olmoe(config: Decoder) -> Fields:
  return write_experts(config, write_llama, 'num_experts', 'intermediate_size')
