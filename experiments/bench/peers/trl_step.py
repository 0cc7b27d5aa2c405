"""What TRL's trainers share here: the model from our parameters, words for tokens, settings, and one update.

A trainer's own `training_step` is called, and then what `Trainer.train` does after it: clip, update, forget the gradients.
Its loop, callbacks and logs are left out, which is to its advantage. The settings are those that cost it least on a CPU:
float32, no gradient checkpointing (both are otherwise on by default), no dropout, a fused AdamW.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
import trl
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from experiments.bench.peers.hf import config
from experiments.bench.peers.torch_step import adamw
from experiments.bench.task import INITIAL, Task


def llama(task: Task) -> LlamaForCausalLM:
  """The task's model."""
  return LlamaForCausalLM(config(task))


def words(task: Task) -> PreTrainedTokenizerFast:
  """A tokenizer for which `w7 w8` is [7, 8]."""
  whole = Tokenizer(models.WordLevel({f'w{i}': i for i in range(task.vocab)}, unk_token='w3'))
  whole.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
  return PreTrainedTokenizerFast(tokenizer_object=whole, pad_token='w0', eos_token='w2')


def settings(folder: Path, **more: Any) -> dict[str, Any]:
  """For the configuration of a trainer."""
  return dict(output_dir=str(folder / 'trl'), use_cpu=True, bf16=False, gradient_checkpointing=False, report_to=[],
              save_strategy='no', disable_tqdm=True) | more


class Trained:
  """A trainer, whose model begins again with our parameters and a new optimizer on `begin`."""

  def __init__(self, folder: Path, task: Task, trainer: Any):
    self.folder, self.task, self.trainer = folder, task, trainer
    trainer.current_gradient_accumulation_steps = 1          # what Trainer.train says before its first step

  def begin(self) -> None:
    model = self.trainer.model
    model.load_state_dict(load_file(self.folder / INITIAL))
    self.trainer.optimizer = adamw(model.train(), self.task)

  def taken(self, inputs: Mapping[str, Any]) -> float:
    """The loss of a batch, learnt."""
    return self.updated(self.trainer.training_step(self.trainer.model, dict(inputs), None))

  def updated(self, loss: torch.Tensor) -> float:
    """The loss, whose gradients are there, after the update."""
    torch.nn.utils.clip_grad_norm_(self.trainer.model.parameters(), self.task.clip, foreach=True)
    self.trainer.optimizer.step()
    self.trainer.optimizer.zero_grad(set_to_none=True)
    return loss.item()


def versions() -> dict[str, Any]:
  return {'torch': torch.__version__, 'transformers': transformers.__version__, 'trl': trl.__version__,
          'threads': torch.get_num_threads()}
