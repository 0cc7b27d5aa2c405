"""Evaluates a run or a published model on tasks of lm-evaluation-harness; works offline where the tasks' data are local.

  pip install lm-eval==0.4.13
  python -m experiments.harness --run=runs/smollm2-... --tasks=my_task --include=folder/of/tasks
  python -m experiments.harness --run=runs/smollm2-... --tasks=arc_easy,wikitext --examples=100 --results=results.json

`--include` is a folder of task files (YAML), as the harness describes them.
"""

import json
import sys
from pathlib import Path

from experiments import interrupt

if __name__ == '__main__':
  interrupt.leave_at_once()             # before JAX is imported, which takes a second

from absl import flags
from rich import print as show

from experiments import command
from experiments.load import beyond, load_model
from experiments.processes import cache_compilations
from model.errors import ConfigError
from train.artifact import Store
from train.eval.likelihood import Likelihoods
from train.trained import load

flags.declare_key_flag('run')
TASKS = flags.DEFINE_list('tasks', [], 'Names of tasks.')
INCLUDE = flags.DEFINE_string('include', None, 'A folder with more tasks.')
EXAMPLES = flags.DEFINE_integer('examples', None, 'So many examples of each task.', lower_bound=1)
SHOTS = flags.DEFINE_integer('shots', None, 'Examples before each question; what the task says by default.', lower_bound=0)
BATCH = flags.DEFINE_integer('batch', 8, 'Rows at a time.', lower_bound=1)
LONGEST = flags.DEFINE_integer('longest', 2048, 'Tokens that the model reads at most.', lower_bound=2)
RESULTS = flags.DEFINE_string('results', None, 'A file for the results, in JSON.')


def main(overrides: command.Overrides) -> int:
  """Exit code 0 when the figures are shown."""
  command.no_overrides(overrides)
  if not TASKS.value:
    raise ConfigError('config.tasks', '--tasks', 'it names none', 'give one or more, --tasks=arc_easy,wikitext')
  run, folder = load_model(command.RUN.value)
  found = evaluated(run, folder)
  if RESULTS.value:
    Path(RESULTS.value).write_text(json.dumps(found, indent=1, default=str))
  show(found)
  return 0


def evaluated(run, folder: Path) -> dict:
  """The harness's metrics, by task. Raises: ConfigError where it is not installed, or knows no such task."""
  try:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    from train.eval.harness import Harness
  except ImportError as error:
    raise ConfigError('config.no-harness', f'--tasks={",".join(TASKS.value)}', f'lm-evaluation-harness is not here: {error}',
                      'pip install lm-eval==0.4.13') from None
  manager = TaskManager(include_path=INCLUDE.value)
  if unknown := [name for name in TASKS.value if name not in manager.all_tasks]:
    raise ConfigError('config.tasks', f'--tasks={",".join(unknown)}', 'the harness knows no such task',
                      'mend the name, or give the folder that has it: --include=FOLDER')
  cache_compilations()
  store = Store(folder.parent)
  print(beyond(run, store, LONGEST.value, '--longest lets the model read'), end='', file=sys.stderr)
  opened = load(run, store)
  asked = Likelihoods(opened.model, opened.params, opened.tokenizer, BATCH.value, LONGEST.value)
  return simple_evaluate(Harness(asked), tasks=TASKS.value, limit=EXAMPLES.value, num_fewshot=SHOTS.value, task_manager=manager,
                         bootstrap_iters=0)['results']


if __name__ == '__main__':
  command.run(main)
