"""The GPU benchmark's records as races, so that the page shows their ratios as it shows those of `make bench`.

What is wanted of each stands first. Attention has many shapes: a peer's row is the shape in which ours does worst, and its
line goes from there to the best.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.bench.line import NOISY
from experiments.bench.page_peers import VERDICTS, Benchmark, Peer, Target, place
from experiments.bench.show import quantity

Record = Mapping[str, Any]
MFU = {'124m': 0.42, '1b': 0.55}
STEP, HEAD, HEAD_TFLOPS = 1.1, 1.3, 450.0
# of forward with backward, by kind of rows: the beginning of a peer's name, and at least how many times its speed
ATTENTION = {'packed': {'cudnn, array': 2.5, 'torch flex': 1.1, 'tokamax': 1.1},
             'window': {'cudnn, array': 2.5, 'torch flex': 1.1, 'tokamax': 1.1}, 'causal': {}}
ROWS = {'packed': 'packed rows', 'window': 'a window of 1,024', 'causal': 'whole causal rows'}


def races(records: Sequence[Record], attended: Mapping[str, Mapping[str, Mapping[bool, Record]]]) -> list[Benchmark]:
  """Training steps, attention and head, as far as ours and a peer were both measured."""
  step = {(each['task'], each['contestant']): each for each in records if each.get('part') == 'train' and 'seconds' in each
          and 'contestant' in each}
  head = {each['contestant']: each for each in records if each.get('part') == 'head' and 'seconds' in each}
  found = [_step(task, {name: each for (of, name), each in step.items() if of == task})
           for task in dict.fromkeys(task for task, _ in step)]
  found += [_attention(kind, attended) for kind in ROWS]
  if 'ours' in head:
    peers = [peer(name, each['seconds'] / head['ours']['seconds'], HEAD, each) for name, each in head.items() if name != 'ours']
    rate = head['ours']['tflops']
    target = Target('TFLOP/s', f'{rate:.0f}', f'≥ {HEAD_TFLOPS:.0f}', rate >= HEAD_TFLOPS)
    found.append(judged('head', 'Loss head', head['ours'], peers, [target]))
  return [each for each in found if each]


def _step(task: str, each: Mapping[str, Record]) -> Benchmark | None:
  """Whole rows beside Hugging Face's: those of both see as much."""
  ours = each.get('ours whole')
  if ours is None:
    return None
  peers = [peer(name, record['seconds'] / ours['seconds'], STEP, record) for name, record in each.items()
           if not name.startswith('ours')]
  targets = [Target('MFU', f'{ours["mfu"]:.1%}', f'≥ {MFU[task]:.0%}', ours['mfu'] >= MFU[task])] if task in MFU else []
  verdict = 'unequal' if not all(record.get('equal', True) for record in each.values()) else ''
  return judged(f'train-{task}', f'Training step, {task}, bfloat16', ours, peers, targets, verdict)


def _attention(kind: str, attended: Mapping[str, Mapping[str, Mapping[bool, Record]]]) -> Benchmark | None:
  """Forward with backward, by the form that a run takes by itself."""
  ratios: dict[str, list[float]] = {}
  shapes = 0
  for sight, forms in attended.items():
    ours = next((both[True] for both in forms.values() if both.get(True, {}).get('chosen') and 'seconds' in both[True]), None)
    if sight.split()[0] != kind or ours is None:
      continue
    shapes += 1
    for form, both in forms.items():
      if not form.startswith('ours') and 'seconds' in both.get(True, {}):
        ratios.setdefault(form, []).append(both[True]['seconds'] / ours['seconds'])
  if not shapes:
    return None
  peers = [peer(form, min(each), next((least for name, least in ATTENTION[kind].items() if form.startswith(name)), None), {},
                max(each), f'worst of {len(each)} shapes') for form, each in ratios.items()]
  return judged(f'attention-{kind}', f'Attention with its backward pass, {ROWS[kind]}', None, peers, [])


def peer(name: str, ratio: float, least: float | None, record: Record, best: float | None = None, said: str = '') -> Peer:
  """A row; its line is the spread of its turns, or goes on to the best ratio."""
  half = record.get('spread', 0.0) / 2
  low, high = (place(ratio / (1 + half)), place(ratio * (1 + half))) if best is None else (place(ratio), place(best))
  wanted, bar = ('', '') if least is None else (f'≥ {least:.3g}', f'{place(least):.1f}')
  spread = f'{record["spread"]:.0%}' if 'spread' in record else ''
  return Peer(name, ratio, said or quantity(record['seconds'], 's'), spread, wanted, record.get('spread', 0.0) <= NOISY,
              f'{place(ratio):.1f}', f'{low:.1f}', f'{high - low:.1f}', bar)


def judged(name: str, title: str, ours: Record | None, peers: list[Peer], others: list[Target], verdict: str = '') -> Benchmark:
  """A race, with a verdict where one is allowed."""
  targets = [*others, *(Target(f'speed of {each.name}', f'{each.ratio:.3g}', each.wanted, each.ratio >= float(each.wanted[2:]))
                        for each in peers if each.wanted)]
  rough = any(not each.judged for each in peers) or (ours or {}).get('spread', 0.0) > NOISY
  verdict = verdict or ('noisy' if rough else 'no peers' if not peers else 'met' if all(each.met for each in targets)
                        else 'missed')
  time = quantity(ours['seconds'], 's') if ours else ''
  spread = f'{ours["spread"]:.0%}' if ours and 'spread' in ours else ''
  return Benchmark(name, title, verdict, VERDICTS[verdict], time, spread, peers, targets, others, [])
