"""TRL's own losses on given arrays: its trainers' methods, each with as little of a trainer as it reads.

The arrays are those of `tests/align/test_peers.py`. A loss that TRL averages over rows is written with its gradient by the
log-probs, so that each row is compared. Nothing of TRL's is copied: where it computes something in the middle of a long
method (the advantages of GRPO and RLOO), a real trainer of a tiny model is run and asked for it.
"""

import sys
import tempfile
from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import DPOTrainer, GRPOConfig, GRPOTrainer, KTOTrainer, RewardTrainer, RLOOConfig, RLOOTrainer
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer
from trl.trainer.utils import entropy_from_logits

ALONE = SimpleNamespace(device='cpu', num_processes=1, sync_gradients=True, gather=lambda x: x, gather_for_metrics=lambda x: x,
                        reduce=lambda x, reduction: x)


def trainer(**fields):
  """As much of a trainer as its losses read."""
  common = dict(accelerator=ALONE, model=SimpleNamespace(training=True), aux_loss_enabled=False, _total_train_tokens=0,
                _tp_size=1, _metrics=defaultdict(lambda: defaultdict(list)))
  return SimpleNamespace(**common | fields)


def said(logps_BT):
  """What a model gives TRL's losses: log-probs of tokens, and what it looks at besides."""
  zeros = torch.zeros_like(logps_BT).detach()
  return SimpleNamespace(log_probs=logps_BT, entropy=zeros, mean_logits=zeros, is_top1=zeros > 0, log_sum_sq_probs=zeros)


def with_gradient(loss_of, x):
  x = x.clone().requires_grad_()
  loss = loss_of(x)
  loss.backward()
  return loss.detach().numpy(), x.grad.numpy()


def dpo(kind, beta, given):
  """DPOTrainer._compute_loss: rows are all chosen ones, then all rejected ones."""
  mask_BT = torch.cat([torch.zeros(len(given['mask_BT']), 1), given['mask_BT']], 1)
  chosen_B, rejected_B = (given['ref_BT'] * given['mask_BT']).sum(1).chunk(2)
  inputs = {'input_ids': torch.zeros(mask_BT.shape, dtype=torch.long), 'attention_mask': torch.ones(mask_BT.shape),
            'completion_mask': mask_BT, 'ref_chosen_logps': chosen_B, 'ref_rejected_logps': rejected_B}
  self = trainer(loss_types=[kind], loss_weights=[1.0], beta=beta, ld_alpha=None, precompute_ref_logps=True,
                 f_divergence_type='reverse_kl', label_smoothing=0.0, use_weighting=False)
  return with_gradient(lambda x: DPOTrainer._compute_loss(self, lambda **_: said(x * given['mask_BT']), inputs, False),
                       given['logp_BT'])


def kto(beta, desirable, undesirable, given):
  mask_BT = torch.cat([torch.zeros(len(given['mask_BT']), 1), given['mask_BT']], 1)
  ids = torch.zeros(mask_BT.shape, dtype=torch.long)
  inputs = {'input_ids': ids, 'attention_mask': torch.ones(mask_BT.shape), 'completion_mask': mask_BT,
            'label': given['desirable_B'], 'ref_logps': (given['ref_BT'] * given['mask_BT']).sum(1),
            'ref_KL_logps': torch.zeros(len(ids))}
  self = trainer(beta=beta, desirable_weight=desirable, undesirable_weight=undesirable, loss_type='kto', calculate_KL=True,
                 precompute_ref_logps=True, _compute_kl_logps=lambda *_: given['mismatched_B'])
  return with_gradient(lambda x: KTOTrainer._compute_loss(self, lambda **_: said(x * given['mask_BT']), inputs, False),
                       given['logp_BT'])


def reward(margin, centring, given):
  pairs_BP = given['rewards_BP']
  self = trainer(args=SimpleNamespace(center_rewards_coefficient=centring))
  inputs = {'attention_mask': torch.ones(1), **({'margin': given['margin_B']} if margin else {})}
  return with_gradient(lambda x: RewardTrainer.compute_loss(
      self, lambda **_: SimpleNamespace(logits=x.T.reshape(-1, 1)), inputs), pairs_BP)


def grpo(given, kind='grpo', level='token', beta=0.0, low=0.2, high=0.2, delta=None, trained=GRPOTrainer, **more):
  """GRPOTrainer._compute_loss on given log-probs."""
  mask_BT = given['mask_BT']
  ids = torch.zeros(mask_BT.shape, dtype=torch.long)
  inputs = {'prompt_ids': ids[:, :1], 'prompt_mask': ids[:, :1], 'completion_ids': ids, 'completion_mask': mask_BT,
            'advantages': given['advantage_B'], 'old_per_token_logps': given['old_BT'], 'ref_per_token_logps': given['ref_BT'],
            'num_items_in_batch': mask_BT.sum(), 'old_logps': (given['old_BT'] * mask_BT).sum(1)}

  def loss_of(logp_BT):
    self = trainer(loss_type=kind, importance_sampling_level=level, beta=beta, epsilon_low=low, epsilon_high=high,
                   top_entropy_quantile=1.0, off_policy_mask_threshold=None, use_vllm=False, _entropy_bonus_enabled=False,
                   current_gradient_accumulation_steps=1, max_completion_length=mask_BT.shape[1],
                   args=SimpleNamespace(delta=delta, use_bias_correction_kl=False, steps_per_generation=1), **more,
                   _get_per_token_logps_and_entropies=lambda *_, **__: (logp_BT, torch.zeros_like(logp_BT).detach(), None))
    return trained._compute_loss(self, None, inputs)

  return with_gradient(loss_of, given['logp_BT'])


def advantages(kind, config, rewards_B, **settings):
  """What a real trainer makes of these rewards, in the order of its batch, sorted: it shuffles."""
  words = {word: i for i, word in enumerate(['<pad>', '<eos>', 'a', 'b', 'c'])}
  split = Tokenizer(models.WordLevel(words, unk_token='a'))
  split.pre_tokenizer = pre_tokenizers.Whitespace()
  tokenizer = PreTrainedTokenizerFast(tokenizer_object=split, pad_token='<pad>', eos_token='<eos>')
  model = LlamaForCausalLM(LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
                                       num_attention_heads=1, num_key_value_heads=1))
  kept = []

  class Kept(kind):
    def _compute_loss(self, model, inputs):
      kept.append(inputs['advantages'])
      return super()._compute_loss(model, inputs)

  with tempfile.TemporaryDirectory() as folder:
    args = config(output_dir=folder, per_device_train_batch_size=len(rewards_B), num_generations=4, max_completion_length=2,
                  max_steps=1, use_cpu=True, report_to=[], bf16=False, save_strategy='no', disable_tqdm=True, beta=0.0,
                  **settings)
    Kept(model=model, args=args, processing_class=tokenizer, train_dataset=Dataset.from_dict({'prompt': ['a b'] * 8}),
         reward_funcs=lambda prompts, completions, **_: rewards_B.tolist()).train()
  return kept[0].sort().values.numpy()


def main(source: str, target: str) -> None:
  with np.load(source) as held:
    given = {name: torch.tensor(held[name]) for name in held.files}
  found = {}

  def keep(name, pair):
    found[name], found[f'{name}_grad'] = pair

  for kind in ('sigmoid', 'hinge', 'ipo'):
    keep(f'dpo_{kind}', dpo(kind, 0.3, given))
  keep('kto', kto(0.3, 1.5, 0.7, given))
  keep('reward', reward(False, None, given))
  keep('reward_margin', reward(True, 0.01, given))
  for name, settings in {
      'grpo': {}, 'bnpo': {'kind': 'bnpo'}, 'dapo': {'kind': 'dapo', 'high': 0.28}, 'dr_grpo': {'kind': 'dr_grpo'},
      'grpo_kl': {'beta': 0.4}, 'dapo_cap': {'kind': 'dapo', 'delta': 3.0},
      'gspo': {'level': 'sequence', 'low': 0.1, 'high': 0.1}}.items():
    keep(name, grpo(given, **settings))
  keep('rloo', grpo(given, trained=RLOOTrainer))
  mean_BP = given['mean_BP']
  paired = SimpleNamespace(accelerator=ALONE, beta=2.0, alpha=0.0, loss_type='simpo', simpo_gamma=0.5, label_smoothing=0.0)
  found['simpo'] = CPOTrainer.cpo_loss(paired, *mean_BP.T)[0].numpy()
  paired.loss_type, paired.label_smoothing = 'sigmoid', 0.1
  found['conservative'] = CPOTrainer.cpo_loss(paired, *mean_BP.T)[0].numpy()
  found['orpo'] = ORPOTrainer.odds_ratio_loss(paired, *mean_BP.T)[0].numpy()
  found['entropy'] = entropy_from_logits(given['logits']).numpy()
  found['advantages_group'] = advantages(GRPOTrainer, GRPOConfig, given['advantage_B'], scale_rewards='group')
  found['advantages_none'] = advantages(GRPOTrainer, GRPOConfig, given['advantage_B'], scale_rewards='none')
  found['advantages_rloo'] = advantages(RLOOTrainer, RLOOConfig, given['advantage_B'], normalize_advantages=False)
  np.savez(target, **found)


if __name__ == '__main__':
  main(*sys.argv[1:])
