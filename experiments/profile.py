"""Reads a profile of training steps: the operations that take most time, and the shares of matmuls, other work, and idling.

  python -m experiments.profile --run=runs/NAME-1f3a9c42d0
  python -m experiments.profile --trace=FOLDER --top=40

A run writes a profile with --config.watch.profile='(20, 23)', of its steps 21 to 23. This prints a summary; for the timeline
open the *.trace.json.gz that it names at https://ui.perfetto.dev (`Open trace file`; the file is not uploaded), or in Chromium
at chrome://tracing.

Times are summed over devices; an operation's time excludes operations nested in it. Where operations overlap, shares add up to
more than one. On a CPU the time of a collective is mostly waiting for the other devices.
"""

import gzip
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags
from rich.console import Console
from rich.table import Table

from experiments import command
from experiments.profile_program import Operation, guessed, of_names, programs
from model.errors import ConfigError, DataError

flags.declare_key_flag('run')
TRACE = flags.DEFINE_string('trace', '', 'A folder with a trace of jax.profiler, instead of a run.')
TOP = flags.DEFINE_integer('top', 20, 'How many operations are listed.', lower_bound=1)

STREAM, OPERATIONS, PROGRAMS = 'Stream', 'XLA Ops', 'XLA Modules'      # beginnings of the names of a device's lanes in a trace
KINDS = {'matmul': 'matrix products', 'kernel': 'kernels (custom calls)', 'collective': 'collectives',
         'elementwise': 'all else (elementwise, copies)'}


class Event(NamedTuple):
  """One execution of an operation; times in microseconds."""

  program: str
  name: str
  device: str
  thread: Any
  begin: float
  end: float
  launch: str                          # the execution of the program that it is part of


class Row(NamedTuple):
  """An operation over the whole trace: seconds without nested operations, executions, kind and source."""

  name: str
  seconds: float
  times: int
  what: Operation


class Found(NamedTuple):
  """The summary of a trace. span: seconds from first to last event, busy: those with an operation, both over all devices."""

  devices: int
  span: float
  busy: float
  steps: int                           # executions of the program that took most time
  rows: list[Row]                      # the longest first

  def of(self, kind: str) -> float:
    """Seconds in operations of one kind."""
    return sum(row.seconds for row in self.rows if row.what.kind == kind)


def main(overrides: command.Overrides) -> int:
  """Prints the summary. Raises: ConfigError unless one of --run and --trace is given."""
  command.no_overrides(overrides)
  if bool(TRACE.value) == bool(command.RUN.value):
    raise ConfigError('profile.what', f'--run={command.RUN.value!r}, --trace={TRACE.value!r}', 'one of them names the profile',
                      'give --run=runs/NAME-1f3a9c42d0, or --trace=FOLDER')
  path = newest(Path(TRACE.value or Path(command.RUN.value) / 'profile'))
  show(read(path), path, TOP.value)
  return 0


def newest(folder: Path) -> Path:
  """The newest trace under a folder. Raises: DataError where there is none."""
  traces = sorted((path for path in folder.rglob('*.trace.json.gz') if 'perfetto' not in path.name),
                  key=lambda path: path.stat().st_mtime)
  if not traces:
    raise DataError('profile.none', str(folder), 'there is no *.trace.json.gz of jax.profiler',
                    "launch it with --config.watch.profile='(20, 23)', under another --runs folder where it is made already")
  return traces[-1]


def read(path: Path) -> Found:
  """The summary of a trace. Raises: DataError where it has no operation of a device."""
  raw = json.loads(gzip.decompress(path.read_bytes()))['traceEvents']
  events = list(operations(raw))
  if not events:
    raise DataError('profile.empty', str(path), 'no operation of a device is in it', 'profile more, or later, steps')
  known = kinds(path, events)
  spans = [covered(each) for each in grouped(events, lambda event: event.device)]
  seconds, counts = defaultdict[tuple[str, str], float](float), defaultdict[tuple[str, str], int](int)
  for lane in grouped(events, lambda event: (event.device, event.thread)):
    for event, own in alone(lane):
      seconds[event.program, event.name] += own / 1e6
      counts[event.program, event.name] += 1
  rows = [Row(each[1], time, counts[each], known.get(each) or guessed(each[1])) for each, time in seconds.items()]
  return Found(len(spans), sum(span for span, _ in spans), sum(busy for _, busy in spans), calls(raw, events),
               sorted(rows, key=lambda row: -row.seconds))


def kinds(path: Path, events: Sequence[Event]) -> dict[tuple[str, str], Operation]:
  """The kind and source of operations, by (program, name), from the programs that the profiler stored beside the trace."""
  kept = [program for plane in path.parent.glob('*.xplane.pb') for program in programs(plane)]
  names = defaultdict[str, set[str]](set)
  for event in events:
    names[event.program].add(event.name)
  return {(program, name): what for program, of in names.items() for name, what in of_names(kept, program, of).items()}


def operations(raw: Sequence[dict[str, Any]]) -> Iterator[Event]:
  """The executed operations among a trace's events, each once.

  On a GPU they are in lanes of streams, and again in lanes that the profiler derives from these; a TPU has only derived lanes;
  on a CPU they are the events with an `hlo_op`, on any thread.
  """
  lanes = {(each['pid'], each['tid']): each['args']['name'] for each in raw
           if each.get('ph') == 'M' and each['name'] == 'thread_name'}
  streams = {pid for (pid, _), name in lanes.items() if name.startswith(STREAM)}
  derived = {pid for (pid, _), name in lanes.items() if name == OPERATIONS} - streams
  for each in raw:
    said, lane = each.get('args') or {}, lanes.get((each.get('pid'), each.get('tid')), '')
    device = each.get('pid') in streams | derived
    wanted = lane.startswith(STREAM) or (lane == OPERATIONS and each['pid'] in derived) if device else 'hlo_op' in said
    if each.get('ph') == 'X' and wanted:
      yield Event(said.get('hlo_module', ''), said.get('hlo_op', each['name']), str(said.get('device_ordinal', each['pid'])),
                  each['tid'], each['ts'], each['ts'] + each['dur'], str(said.get('run_id', '')))


def calls(raw: Sequence[dict[str, Any]], events: Sequence[Event]) -> int:
  """Executions of the program that took most time, on one device: by its operations' run ids, else by the lane of programs."""
  times = defaultdict[str, float](float)
  for event in events:
    times[event.program] += event.end - event.begin
  longest = max(times, key=lambda program: times[program])
  if launches := {event.launch for event in events if event.program == longest} - {''}:
    return len(launches)
  lanes = {(each['pid'], each['tid']) for each in raw if each.get('ph') == 'M' and each['name'] == 'thread_name'
           and each['args']['name'] == PROGRAMS}
  runs = defaultdict[tuple[Any, str], list[float]](list)
  for each in raw:
    if each.get('ph') == 'X' and (each.get('pid'), each.get('tid')) in lanes:
      runs[each['pid'], each['name']].append(each['dur'])
  return len(max(runs.values(), key=sum, default=[0.0]))


def grouped(events: Sequence[Event], key: Any) -> list[list[Event]]:
  """Events grouped by `key`, each group in order of start."""
  lanes = defaultdict[Any, list[Event]](list)
  for event in sorted(events, key=lambda event: (event.begin, -event.end)):
    lanes[key(event)].append(event)
  return list(lanes.values())


def covered(events: Sequence[Event]) -> tuple[float, float]:
  """(seconds from the first start to the last end, seconds in which some event runs)."""
  end = busy = 0.0
  for event in events:
    busy += max(0.0, event.end - max(end, event.begin))
    end = max(end, event.end)
  return (end - events[0].begin) / 1e6, busy / 1e6


def alone(events: Sequence[Event]) -> list[tuple[Event, float]]:
  """Events of one thread, each with its microseconds less those of events nested in it."""
  own = [event.end - event.begin for event in events]
  around: list[int] = []
  for place, event in enumerate(events):
    while around and events[around[-1]].end <= event.begin:
      around.pop()
    if around:
      own[around[-1]] -= min(event.end, events[around[-1]].end) - event.begin
    around.append(place)
  return [(event, max(0.0, time)) for event, time in zip(events, own)]


def show(found: Found, path: Path, top: int) -> None:
  """Prints the time of a step, the shares by kind, and the `top` longest operations."""
  console = Console()
  steps = found.steps
  console.print(f'{found.span / found.devices / steps * 1e3:.3g} ms a step, {steps} steps on {found.devices} '
                f'device{"s" * (found.devices > 1)}', highlight=False)
  shares = Table('', '', box=None, show_header=False, pad_edge=False)
  for kind, words in KINDS.items():
    shares.add_row(words, f'{found.of(kind) / found.span:.1%}')
  shares.add_row('idle', f'{1 - found.busy / found.span:.1%}')
  console.print(shares)
  table = Table('operation', 'ms a step', 'share', 'times', 'kind', 'from')
  for row in found.rows[:top]:
    table.add_row(row.name, f'{row.seconds / found.devices / steps * 1e3:.3g}', f'{row.seconds / found.span:.1%}',
                  f'{row.times / found.devices / steps:.3g}', row.what.kind, '/'.join(row.what.source.split('/')[-3:]))
  console.print(table)
  console.print(f'along the time: open {path} at https://ui.perfetto.dev', highlight=False, soft_wrap=True)


if __name__ == '__main__':
  command.run(main)
