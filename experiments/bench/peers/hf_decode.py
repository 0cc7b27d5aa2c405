"""Hugging Face's greedy decoding of the same model: `python -m experiments.bench.peers.hf_decode FOLDER ROWS`."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from experiments.bench.task import DECODED, PROMPTS, THEIRS
from experiments.bench.worker import Sample, peak_mb, serve, timed


class Decode:
  """`generate` with its cache, as its documentation has it."""

  def __init__(self, folder: Path, rows: int):
    self.folder, self.prompts = folder, torch.tensor(json.loads((folder / PROMPTS).read_text())[:rows])

  def prepare(self) -> dict[str, Any]:
    begin = time.perf_counter()
    self.model = AutoModelForCausalLM.from_pretrained(self.folder / THEIRS, dtype=torch.float32).eval()
    self.model.generation_config.eos_token_id = None        # nothing ends a row early
    seconds, peak = time.perf_counter() - begin, peak_mb()
    return {'ids': self.write(), 'load_s': seconds, 'peak_mb': peak}

  def step(self) -> Sample:
    return timed(self.write)[0]

  def write(self) -> list[list[int]]:
    with torch.no_grad():
      said = self.model.generate(self.prompts, attention_mask=torch.ones_like(self.prompts), max_new_tokens=DECODED,
                                 do_sample=False, pad_token_id=0)
    return said[:, self.prompts.shape[1]:].tolist()


if __name__ == '__main__':
  serve(Decode(Path(sys.argv[1]), int(sys.argv[2])))
