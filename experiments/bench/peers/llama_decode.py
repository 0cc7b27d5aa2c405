"""llama.cpp's greedy decoding of the same model in float32: `python -m experiments.bench.peers.llama_decode FOLDER ROWS`.

By its C interface, for its Python class holds one sequence: the rows of a step are one batch. Keys and values in float32 too.
"""

import ctypes
import json
import sys
import time
from pathlib import Path
from typing import Any

import llama_cpp as llama
import numpy as np

from experiments.bench.task import DECODED, GGUF, PROMPTED, PROMPTS
from experiments.bench.worker import Sample, peak_mb, serve, timed

THREADS, FLOAT32 = 2, 0


class Decode:
  """One context, whose memory is emptied before each step."""

  def __init__(self, folder: Path, rows: int):
    self.folder, self.prompts = folder, json.loads((folder / PROMPTS).read_text())[:rows]

  def prepare(self) -> dict[str, Any]:
    begin = time.perf_counter()
    llama.llama_backend_init()
    self.model = llama.llama_model_load_from_file(str(self.folder / GGUF).encode(), llama.llama_model_default_params())
    asked, rows = llama.llama_context_default_params(), len(self.prompts)
    asked.n_ctx, asked.n_batch, asked.n_ubatch = rows * (PROMPTED + DECODED + 8), rows * PROMPTED, rows * PROMPTED
    asked.n_seq_max, asked.n_threads, asked.n_threads_batch = rows, THREADS, THREADS
    asked.type_k = asked.type_v = FLOAT32
    self.context = llama.llama_init_from_model(self.model, asked)
    self.vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self.model))
    self.batch = llama.llama_batch_init(rows * PROMPTED, 0, 1)
    seconds, peak = time.perf_counter() - begin, peak_mb()
    return {'ids': self.write(), 'load_s': seconds, 'peak_mb': peak}

  def step(self) -> Sample:
    return timed(self.write)[0]

  def write(self) -> list[list[int]]:
    llama.llama_memory_clear(llama.llama_get_memory(self.context), False)
    written: list[list[int]] = [[] for _ in self.prompts]
    new = self.prompts
    for step in range(DECODED):
      begin = 0 if step == 0 else PROMPTED + step - 1
      new = [[token] for token in self.read(new, begin)]
      for row, [token] in zip(written, new):
        row.append(token)
    return written

  def read(self, rows: list[list[int]], begin: int) -> list[int]:
    """The best next id of each row, after so many more."""
    batch, length = self.batch, len(rows[0])
    batch.n_tokens = len(rows) * length
    for place, (row, offset) in enumerate((row, offset) for row in range(len(rows)) for offset in range(length)):
      batch.token[place], batch.pos[place] = rows[row][offset], begin + offset
      batch.n_seq_id[place], batch.seq_id[place][0], batch.logits[place] = 1, row, offset == length - 1
    if llama.llama_decode(self.context, batch):
      raise RuntimeError('llama.cpp could not decode')
    return [int(np.argmax(self.logits((row + 1) * length - 1))) for row in range(len(rows))]

  def logits(self, place: int) -> np.ndarray:
    pointer = llama.llama_get_logits_ith(self.context, place)
    return np.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float)), (self.vocab,))


if __name__ == '__main__':
  serve(Decode(Path(sys.argv[1]), int(sys.argv[2])))
