"""Folders that runs cannot be left in: of another kind, of another run, edited, torn, or in use."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from tests.bad_input.given import launch
from tests.bad_input.table import Table

ROOT = Path(__file__).parent.parent.parent

case = Table()


@case(9, 'store.not-a-folder', 'is a file', '--runs')
def an_output_folder_that_is_a_file(folder):
  (folder / 'runs').touch()
  launch(folder)


@case(9, 'store.not-a-folder', 'is a file', '--runs')
def an_output_folder_inside_a_file(folder):
  (folder / 'file').touch()
  launch(folder, f'--runs={folder / "file" / "runs"}')


@case(9, 'store.not-writable', '/proc', '--runs')
def an_output_folder_that_cannot_be_written(folder):
  launch(folder, '--runs=/proc/runs')


@case(9, 'store.other-run', 'minutes was 77 and is 40', 'another --runs folder')
def an_output_folder_that_holds_another_run(folder):
  from experiments.bakery import get_config

  from train.artifact import Store
  store, mine = Store(folder / 'runs'), get_config()
  other = replace(mine, minutes=77)
  store.make(other)
  store.place(other).rename(store.place(mine))
  launch(folder)


@case(9, 'store.bad-mark', 'made.json', 'delete it to make the thing again')
def a_mark_that_does_not_say_what_was_made(folder):
  launch(folder)
  [path] = (folder / 'runs').glob('bread-*/made.json')
  path.write_text('[]')
  launch(folder)


@case(9, 'config.bad-name', "name = '../bread'", 'letters, digits')
def a_name_that_leads_out_of_the_output_folder(folder):
  launch(folder, '--config.name=../bread')


@case(10, 'config.changed-meaning', 'run.json', 'edited', 'copy it elsewhere')
def a_resume_with_changed_meaning(folder):
  launch(folder)
  [path] = (folder / 'runs').glob('bread-*/run.json')
  path.write_text(path.read_text().replace('"minutes": 40', '"minutes": 41'))
  launch(folder, f'--config={path}')


@case(10, 'config.unknown-field', 'config.yeast', 'Bread has only', 'use the version of the code')
def a_run_of_newer_code(folder):
  launch(folder)
  [path] = (folder / 'runs').glob('bread-*/run.json')
  path.write_text(json.dumps(json.loads(path.read_text()) | {'yeast': 3}))
  launch(folder, f'--config={path}')


@case(10, 'data.bad-json', 'run.json:1:10', 'mend the file')
def a_run_json_that_is_torn(folder):
  (folder / 'run.json').write_text('{"type": ')
  launch(folder, f'--config={folder / "run.json"}')


@case(10, 'config.unknown-type', "'os.system'", 'kernels, model')
def a_run_json_that_names_something_else_than_a_config(folder):
  (folder / 'run.json').write_text('{"type": "os.system", "command": "true"}')
  launch(folder, f'--config={folder / "run.json"}')


@case(11, 'store.locked', 'process', 'wait for it, end it, or launch with another --runs folder')
def a_folder_in_which_another_process_works(folder):
  from train.lock import Lock
  holder = 'import sys; from train.lock import Lock; lock = Lock(sys.argv[1]).__enter__(); print(1, flush=True); input()'
  with subprocess.Popen([sys.executable, '-c', holder, folder], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as job:
    job.stdout.readline()
    try:
      Lock(folder).__enter__()
    finally:
      job.communicate(b'\n')
