"""Hugging Face's greedy decoding on a GPU, of random weights: `python -m experiments.bench.peers.hf_written [quick]`.

`generate` with a static cache in bfloat16, its forward pass compiled, as its documentation has it. A JSON line for each number
of rows; a step is what a longer answer takes more than a shorter one.
"""

import json
import sys
import time
from statistics import median

import torch
from transformers import LlamaForCausalLM

from experiments.bench.peers.hf import config
from experiments.bench.peers.torch_step import DEVICE
from experiments.bench.task import TASKS, WRITTEN, Writing


def model_of(writing: Writing) -> LlamaForCausalLM:
  torch.manual_seed(0)
  with torch.device(DEVICE):
    model = LlamaForCausalLM(config(TASKS[writing.task], max_position_embeddings=4096)).to(torch.bfloat16).eval()
  model.generation_config.eos_token_id = None            # nothing ends a row early
  model.generation_config.cache_implementation = 'static'
  return model


def seconds(model: LlamaForCausalLM, writing: Writing) -> float:
  """Of one step of all rows: the median over turns."""
  prompts = torch.arange(writing.rows * writing.prompt, device=DEVICE).reshape(writing.rows, -1) % 1000 + 1

  def once(count: int) -> float:
    begin = time.perf_counter()
    model.generate(prompts, attention_mask=torch.ones_like(prompts), min_new_tokens=count, max_new_tokens=count,
                   do_sample=False, pad_token_id=0)
    if DEVICE == 'cuda':
      torch.cuda.synchronize()
    return time.perf_counter() - begin

  few, many = writing.answer // 4, writing.answer
  once(few), once(many), once(few)
  return median((once(many) - once(few)) / (many - few) for _ in range(3))


def main(quick: bool) -> None:
  for writing in WRITTEN['tiny' if quick else '1b']:
    line = {'form': 'HF static cache, compiled', 'rows': writing.rows}
    try:
      took = seconds(model_of(writing), writing)
      line |= {'seconds': took, 'tokens_per_s': writing.rows / took}
    except Exception as error:         # one that fails leaves the others to be measured
      line['failed'] = str(error)[:500]
    print(json.dumps(line), flush=True)


if __name__ == '__main__':
  main('quick' in sys.argv[1:])
