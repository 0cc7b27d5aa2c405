"""The figures of lm-evaluation-harness through its own transformers back end, beside those of `experiments.harness`.

  PEER/bin/python -m tests.peers.harness FOLDER TASKS_FOLDER results.json [LONGEST]         with lm-eval, torch, transformers

FOLDER is the same model exported (`experiments.export`), results.json what `experiments.harness --results` wrote. One row at a
time: in 0.4.13 their windows of different lengths in one batch come out otherwise than alone.
"""

import json
import sys
from pathlib import Path

import lm_eval
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager


def main(folder: str, tasks: str, results: str, longest: str = '2048') -> None:
  ours = json.loads(Path(results).read_text())
  model = HFLM(pretrained=folder, device='cpu', dtype='float32', batch_size=1, max_length=int(longest))
  theirs = lm_eval.simple_evaluate(model, tasks=list(ours), task_manager=TaskManager(include_path=tasks), bootstrap_iters=0)
  for task, figures in theirs['results'].items():
    for name, value in figures.items():
      if isinstance(value, float):
        mine = float(ours[task][name])
        same = 'same' if abs(value - mine) <= 1e-4 * abs(value) else 'DIFFERENT'
        print(f'{task:12} {name:26} theirs {value:.8f} ours {mine:.8f} {same}')


if __name__ == '__main__':
  main(*sys.argv[1:])
