"""The losses, rewards and advantages of TRL's PPOTrainer of 0.11, the last whose PPO has methods for them.

Later ones compute them in the middle of `train`, where nothing can be asked of them, and 1.16 has no PPO at all.
"""

import sys
from types import SimpleNamespace

import numpy as np
import torch
from trl.core import masked_whiten
from trl.trainer.ppo_trainer import PPOTrainer
from trl.trainer.utils import AdaptiveKLController


def main(source: str, target: str) -> None:
  with np.load(source) as held:
    given = {name: torch.tensor(held[name]) for name in held.files}
  mask_BT, values_BT, logp_BT = given['mask_BT'], given['values_BT'], given['logp_BT']
  self = PPOTrainer.__new__(PPOTrainer)
  self.kl_ctl = SimpleNamespace(value=0.2)
  self.config = SimpleNamespace(kl_penalty='kl', whiten_rewards=False, gamma=0.9, lam=0.8, cliprange=0.2, cliprange_value=0.3,
                                vf_coef=1.0, ratio_threshold=1e9)
  rewards_BT, _, _ = self.compute_rewards(given['advantage_B'], logp_BT, given['ref_BT'], mask_BT)
  _, advantages_BT, returns_BT = self.compute_advantages(values_BT, given['rewards_BT'], mask_BT)
  new_BT, fresh_BT = logp_BT.clone().requires_grad_(), given['fresh_BT'].clone().requires_grad_()
  policy, value, _ = self.loss(given['old_BT'], values_BT, torch.zeros(*logp_BT.shape, 2), fresh_BT, new_BT, mask_BT,
                               given['advantage_B'][:, None].expand_as(logp_BT), given['returns_BT'])
  (policy + value).backward()
  control = AdaptiveKLController(0.2, 6.0, 10_000)
  betas = []
  for kl in (9.0, 3.0, 6.3, 60.0):
    control.update(kl, 256)
    betas.append(control.value)
  np.savez(target, rewards=rewards_BT.numpy(), whitened=advantages_BT.numpy(), returns=returns_BT.numpy(),
           policy=policy.detach().numpy(), policy_grad=new_BT.grad.numpy(), value=value.detach().numpy(),
           value_grad=fresh_BT.grad.numpy(), betas=np.array(betas),
           scaled=masked_whiten(given['rewards_BT'], mask_BT, shift_mean=False).numpy(),
           alone=masked_whiten(given['rewards_BT'][:1, :1], mask_BT[:1, :1]).numpy())


if __name__ == '__main__':
  main(*sys.argv[1:])
