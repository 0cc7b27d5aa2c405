"""Our greedy decoding of a model in the files that its peers read: `python -m experiments.bench.ours.decode FOLDER ROWS`."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import jax

from experiments.bench.task import DECODED, PROMPTS, THEIRS
from experiments.bench.worker import Sample, peak_mb, serve, timed
from model.decoder import build
from model.generate import generate, lay_out
from model.sampling import Sampling
from model.weights import loading
from model.weights.opening import open_published


class Decode:
  """Each step writes so many ids after each prompt."""

  def __init__(self, folder: Path, rows: int):
    self.folder, self.prompts = folder, json.loads((folder / PROMPTS).read_text())[:rows]

  def prepare(self) -> dict[str, Any]:
    begin = time.perf_counter()
    found, here = open_published(self.folder / THEIRS), jax.sharding.SingleDeviceSharding(jax.devices()[0])
    places = jax.tree.map(lambda _: here, loading.abstract(found.config))
    self.model = build(found.config)
    params = loading.load(found.config, found.rules, found.tensors, places)
    self.ready = jax.block_until_ready(lay_out(self.model, params, alone=len(self.prompts) == 1))
    seconds, peak = time.perf_counter() - begin, peak_mb()
    return {'ids': self.write(), 'load_s': seconds, 'peak_mb': peak}

  def step(self) -> Sample:
    return timed(self.write)[0]

  def write(self) -> list[list[int]]:
    said = generate(self.model, self.ready, self.prompts, max_new=DECODED, sampling=Sampling(0.0),
                    key=jax.random.key(0))
    return [ids.tolist() for ids in said.tokens]


if __name__ == '__main__':
  serve(Decode(Path(sys.argv[1]), int(sys.argv[2])))
