"""Our source of batches: `python -m experiments.bench.ours.data FOLDER alone|waited`.

Alone, it gives batches as fast as it can. Waited for, it feeds the real step, which takes all cores while the source
makes the next batches; what counts is how long the loop stands still for a batch.
"""

import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from experiments.bench.ours.model import built
from experiments.bench.task import TASK
from experiments.bench.worker import Sample, serve, spree, timed
from train.build import start
from train.data.encoding import Encoded
from train.data.mixture import Schedule
from train.data.pack import Stream
from train.data.pipeline import Batches, Placement
from train.data.token_files import BYTES_OF, MANIFEST, open_split, write_split
from train.data.visits import Visits

DOCUMENTS, MEAN_LENGTH = 4000, 2000
SPREE = 200                            # batches of a step when nothing but the source runs


def write_tokens(folder: Path) -> None:
  """Eight million random tokens in documents, in the files that every run reads."""
  random = np.random.default_rng(0)
  bytes_of = np.ones(TASK.vocab, np.int32)
  documents = (Encoded('random', str(i), random.integers(3, TASK.vocab, random.integers(1, 2 * MEAN_LENGTH)))
               for i in range(DOCUMENTS))
  sources: list[str] = []
  np.save(folder / BYTES_OF, bytes_of)
  split = write_split(folder, 'train', documents, bytes_of, sources)
  (folder / MANIFEST).write_text(json.dumps({'tokenizer': 'random', 'sources': sources, 'controls': {},
                                             'splits': {'train': split}}))


def source(folder: Path, mesh: Mesh) -> Batches:
  """The pipeline of a run over those tokens."""
  place = Placement(mesh, TASK.batch)
  visits = Visits([(open_split(folder, 'train'), None)], Schedule((1.0,)), Stream(), TASK.length, 0)
  return Batches(visits, TASK.batch, rows=place.rows, place=place)


class Alone:
  """Each step takes many batches; the seconds are those of one."""

  def __init__(self, folder: Path):
    self.folder = folder

  def prepare(self) -> dict[str, Any]:
    self.source = source(self.folder, built().mesh)
    self.step()
    return {}

  def step(self) -> Sample:
    return spree(lambda: jax.block_until_ready(self.source()), SPREE)


class Waited:
  """Each step waits for a batch, then trains on it."""

  def __init__(self, folder: Path):
    self.folder = folder

  def prepare(self) -> dict[str, Any]:
    training = built()
    self.source, self.state = source(self.folder, training.mesh), start(training, 0)
    with jax.set_mesh(training.mesh):
      self.compiled = jax.jit(training.step, donate_argnums=0).lower(self.state, {}, self.source()).compile()
    self.step()
    return {}

  def step(self) -> Sample:
    waited, batch = timed(lambda: jax.block_until_ready(self.source(self.state)))
    worked, (self.state, _) = timed(lambda: jax.block_until_ready(self.compiled(self.state, {}, batch)))
    return {'wall': waited['wall'] + worked['wall'], 'cpu': waited['cpu'] + worked['cpu'], 'wait': waited['wall']}


if __name__ == '__main__':
  place, form = sys.argv[1:]
  program: Alone | Waited = Alone(Path(place)) if form == 'alone' else Waited(Path(place))
  serve(program)
  program.source.close()               # its threads would keep the process alive
