"""The parts of the GPU benchmark beside the training step, each a generator of records."""

import json
import os
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from experiments.bench.driver import Contestant, race
from experiments.bench.gpu.bench import Bench, Ended, Record, card
from experiments.bench.line import circumstances, figures
from experiments.bench.show import latest
from experiments.bench.task import TASKS
from train.eval.collect import read_lines

TORCH = 'import json, torch, transformers; print(json.dumps({"torch": torch.__version__, "cuda": torch.version.cuda, ' \
        '"cudnn": torch.backends.cudnn.version(), "transformers": transformers.__version__}))'
OUTCOME = r'^\[gw\d+\] .*?(PASSED|FAILED|SKIPPED|ERROR) '      # a line of pytest-xdist
LAST = r'^=+ .* in \d.*=$'
UNTUNED = '--xla_gpu_autotune_level=0'      # trying out products takes most of a test's compiling: 57 tests in 89 s without
DETERMINISTIC = '--xla_gpu_deterministic_ops=true'


def begun() -> Record:
  """When, by which code and on which card: what no figure may be without, so it is written before all of them."""
  return {'part': 'machine', 'cpus': os.cpu_count(), **circumstances(), **({'card': card()} if card() else {})}


def machine(bench: Bench) -> Iterator[Record]:
  """The versions of the peers, whose imports take a while."""
  yield json.loads(list(bench.lines([bench.peers, '-c', TORCH], 'torch'))[-1])


def tests(bench: Bench) -> Iterator[Record]:
  """The tests that need a GPU: what came of each, also where time ended before they did."""
  begin = time.monotonic()
  command = [sys.executable, '-m', 'pytest', '-v', '-m', 'gpu', '-n', '2' if bench.quick else '12', '--durations=10',
             '--continue-on-collection-errors', 'tests']
  with suppress(Ended):                  # it ends so where a test fails, too
    for _ in bench.lines(command, 'tests', {'JAX_PLATFORMS': '', 'XLA_FLAGS': UNTUNED}):
      pass
  said = (bench.out / 'tests.log').read_text()
  yield {'tests': Counter(word.lower() for word in re.findall(OUTCOME, said, re.M)), 'all': bool(re.search(LAST, said, re.M)),
         'seconds': time.monotonic() - begin, 'wrong': re.findall(r'^(?:FAILED|ERROR) (.{1,300})', said, re.M)}


def ceilings(bench: Bench) -> Iterator[Record]:
  """What the card can do at most."""
  yield from bench.program('experiments.bench.ours.ceilings', *quickly(bench))


def attention(bench: Bench) -> Iterator[Record]:
  """Ours, then that of others in JAX, then PyTorch's."""
  yield from in_turn(bench, ('ours.attention', sys.executable, 0.5), ('peers.jax_attention', sys.executable, 0.5),
                     ('peers.torch_attention', bench.peers, 1.0))


def tiles(bench: Bench) -> Iterator[Record]:
  """The block sizes of our kernels of attention, one by one: the fastest belong in their tables."""
  for form in ('hopper', 'triton'):
    yield from bench.program('experiments.bench.ours.attention_tiles', form, *quickly(bench))


def head(bench: Bench) -> Iterator[Record]:
  """The loss head forward and backward, in bfloat16: ours, PyTorch's that holds all logits, and Liger's that does not."""
  name = 'tiny' if bench.quick else 'head'
  task, words = TASKS[name], (name, 'bfloat16')
  racers = [Contestant('ours', 'experiments.bench.ours.head', words, environment=bench.caches, ahead=False),
            *(Contestant(f'torch {form}', 'experiments.bench.peers.torch_head', (*words, form), bench.peers,
                         bench.caches_of(f'head {form}'), ahead=False) for form in ('compiled', 'eager')),
            Contestant('liger', 'experiments.bench.peers.liger', words, bench.peers, bench.caches, ahead=False)]
  for racer in racers:
    try:
      found = race([bench.limited(racer)], 3, 2 if bench.quick else 10, bench.out)
    except Exception as error:         # one that fails leaves the others to be measured
      yield {'contestant': racer.name, 'failed': str(error)[-1500:]}
      continue
    seconds = figures(found.turns[racer.name]).median
    yield {'contestant': racer.name, 'seconds': seconds, **found.prepared[racer.name],
           'tflops': 6.0 * task.tokens * task.width * task.vocab / seconds / 1e12}


def decode(bench: Bench) -> Iterator[Record]:
  """Greedy decoding at 1 and at 64 rows, ours in several kinds of weights, then Hugging Face's compiled."""
  yield from in_turn(bench, ('ours.written', sys.executable, 0.55), ('peers.hf_written', bench.peers, 1.0))


def lowbit(bench: Bench) -> Iterator[Record]:
  """Products with weights in few bits, then the tiles that they might have: as many as there is time for."""
  try:
    yield from bench.program('experiments.bench.ours.lowbit', *quickly(bench))
  except Ended as error:
    yield {'failed': str(error)[-1500:]}


def quickstart(bench: Bench) -> Iterator[Record]:
  """The quick start from raw text to its report, then its first steps again, compared to the bit."""
  runs, begin = bench.room('quickstart'), time.monotonic()
  shorter = ['--config.run.steps=20', '--config.run.saving.every=10', '--config.heldout_bytes=4000'] * bench.quick
  launch = [sys.executable, '-m', 'experiments.launch', '--config=experiments/quickstart/report.py', f'--runs={runs}', *shorter]
  for _ in bench.lines(launch, 'quickstart', {'XLA_FLAGS': DETERMINISTIC}):
    pass
  yield {'launch': 'done', 'seconds': time.monotonic() - begin, **outcome(runs)}
  [run] = runs.glob('sotu-lm-*')
  again = [sys.executable, '-m', 'experiments.reproduce', f'--run={run}', f'--steps={5 if bench.quick else 50}']
  begin = time.monotonic()
  said = list(bench.lines(again, 'reproduce', {'XLA_FLAGS': DETERMINISTIC}))
  yield {'reproduce': next((line for line in said if 'equal' in line or 'differs' in line), 'nothing was said'),
         'seconds': time.monotonic() - begin}


def outcome(runs: Path) -> dict[str, Any]:
  """Tokens a second, and bits a byte of held-out text, as the run and its report noted them."""
  [run], [report] = runs.glob('sotu-lm-*'), runs.glob('sotu-report-*')
  lines = read_lines(run / 'metrics.jsonl')
  paces = [line['tokens_per_s'] for line in lines if 'tokens_per_s' in line]
  times = [line['time'] for line in lines]
  told = json.loads((report / 'report.json').read_text())
  return {'tokens_per_s': statistics.median(paces), 'training_s': times[-1] - times[0],
          'heldout_bpb': [line['heldout_bpb'] for line in lines if 'heldout_bpb' in line][-1],
          'report_bpb': told['headline']['bits_per_byte']}


def checkpoint(bench: Bench) -> Iterator[Record]:
  """Saves and restores of half a gigabyte from the device, by the benchmark that `make bench` has."""
  out = bench.folder / 'checkpoint.jsonl'
  quick = ['--quick'] if bench.quick else ['--turns=3']
  for _ in bench.lines([sys.executable, '-m', 'experiments.bench', 'checkpoint', f'--out={out}', *quick], 'checkpoint'):
    pass
  for line in latest(out):
    yield {'what': line['benchmark'], 'seconds': {name: each['median'] for name, each in line['figures'].items()},
           'bytes': line['bytes'], 'stall_ms': line.get('stall_ms'), 'call_ms': line.get('call_ms')}


def in_turn(bench: Bench, *programs: tuple[str, str, float]) -> Iterator[Record]:
  """What programs tell: the module of each, its Python, its share of the time left. One that fails leaves the others."""
  end = bench.end
  for module, python, share in programs:
    bench.end = time.monotonic() + share * max(1.0, end - time.monotonic())
    try:
      yield from bench.program(f'experiments.bench.{module}', *quickly(bench), python=python)
    except Ended as error:
      yield {'form': module, 'failed': str(error)[-1500:]}


def quickly(bench: Bench) -> tuple[str, ...]:
  return ('quick',) if bench.quick else ()
