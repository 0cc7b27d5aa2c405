"""Where the time of profiled steps goes: the operations that take most, and the shares of products, the rest, and waiting.

  python -m experiments.profile --run=runs/NAME-1f3a9c42d0
  python -m experiments.profile --trace=FOLDER --top=40

A run makes a profile with --config.watch.profile='(20, 23)': of the steps from after the 20th to after the 23rd. This reads it
in the terminal; to look at it along the time, open the *.trace.json.gz that is named below in a browser, at
https://ui.perfetto.dev (`Open trace file`; it stays on the machine) or in Chromium at chrome://tracing.

Time is that of the devices, all added up; an operation's own, without those inside of it. Where operations run side by side
shares add up to more than one. On a CPU a collective's time is mostly that of waiting for the other device.
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

STREAM, OPERATIONS, PROGRAMS = 'Stream', 'XLA Ops', 'XLA Modules'      # lanes of devices, by how their names begin
KINDS = {'matmul': 'matrix products', 'kernel': 'kernels (custom calls)', 'collective': 'collectives',
         'elementwise': 'all else (elementwise, copies)'}


class Event(NamedTuple):
  """An operation that ran; times in microseconds."""

  program: str
  name: str
  device: str
  thread: Any
  begin: float
  end: float
  launch: str                          # which call of the program it is part of


class Row(NamedTuple):
  """An operation over the whole trace: seconds of its own, how often, what it is."""

  name: str
  seconds: float
  times: int
  what: Operation


class Found(NamedTuple):
  """What a trace comes to: seconds from first to last of all devices, those in which something ran, and operations."""

  devices: int
  span: float
  busy: float
  steps: int                           # calls of the program that took most
  rows: list[Row]                      # the longest first

  def of(self, kind: str) -> float:
    """Seconds of one kind."""
    return sum(row.seconds for row in self.rows if row.what.kind == kind)


def main(overrides: command.Overrides) -> int:
  """Prints the profile."""
  command.no_overrides(overrides)
  if bool(TRACE.value) == bool(command.RUN.value):
    raise ConfigError('profile.what', f'--run={command.RUN.value!r}, --trace={TRACE.value!r}', 'one of them names the profile',
                      'give --run=runs/NAME-1f3a9c42d0, or --trace=FOLDER')
  path = newest(Path(TRACE.value or Path(command.RUN.value) / 'profile'))
  show(read(path), path, TOP.value)
  return 0


def newest(folder: Path) -> Path:
  """The last trace under a folder. Raises: DataError where there is none."""
  traces = sorted((path for path in folder.rglob('*.trace.json.gz') if 'perfetto' not in path.name),
                  key=lambda path: path.stat().st_mtime)
  if not traces:
    raise DataError('profile.none', str(folder), 'there is no *.trace.json.gz of jax.profiler',
                    "launch it with --config.watch.profile='(20, 23)', under another --runs folder where it is made already")
  return traces[-1]


def read(path: Path) -> Found:
  """What a trace comes to. Raises: DataError where no device did anything in it."""
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
  """What the operations are, by the programs that the profiler kept beside the trace."""
  kept = [program for plane in path.parent.glob('*.xplane.pb') for program in programs(plane)]
  names = defaultdict[str, set[str]](set)
  for event in events:
    names[event.program].add(event.name)
  return {(program, name): what for program, of in names.items() for name, what in of_names(kept, program, of).items()}


def operations(raw: Sequence[dict[str, Any]]) -> Iterator[Event]:
  """The operations among a trace's events, each once.

  A GPU tells of them by its streams, and again by lanes that the profiler derives from these; a TPU has the derived ones alone;
  on a CPU they are what says which of a program it is, on whatever thread.
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
  """How often the program ran that took most, on one device: as its operations say, or the lane of whole programs; or 1."""
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
  """The events of each device, or of each thread, as they began."""
  lanes = defaultdict[Any, list[Event]](list)
  for event in sorted(events, key=lambda event: (event.begin, -event.end)):
    lanes[key(event)].append(event)
  return list(lanes.values())


def covered(events: Sequence[Event]) -> tuple[float, float]:
  """Seconds from the first begin to the last end, and those in which some event runs."""
  end = busy = 0.0
  for event in events:
    busy += max(0.0, event.end - max(end, event.begin))
    end = max(end, event.end)
  return (end - events[0].begin) / 1e6, busy / 1e6


def alone(events: Sequence[Event]) -> list[tuple[Event, float]]:
  """Events of one thread, each with its microseconds less those of the events inside of it."""
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
  """Prints the shares, then the longest operations."""
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
