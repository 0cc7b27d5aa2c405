"""The benchmark's page, of small made-up lines and of those that are kept: what was measured is drawn, the rest is named."""

import json
import math
import re
from pathlib import Path

import pytest

from experiments.bench import page_lines as page
from experiments.bench.page_gpu import attention_points, gpu
from experiments.bench.page_peers import benchmark, place
from experiments.bench.page_roofline import Frame, Point, roofline
from experiments.bench.sights import BOTH, FORWARD, sights

ROOT, TIMES = Path(__file__).parent.parent.parent, '\N{MULTIPLICATION SIGN}'
MACHINE = {'when': '2030-01-02T03:04:05Z', 'code': {'commit': '0123456789'}, 'versions': {'jax': '9.9'}, 'processor': 'Abacus',
           'cores': 2, 'priority': 'normal', 'load': [1.0]}


def line(name='train-float32', verdict='met', ratios=(('Slow', 1.5),), targets=(), **more):
  figures = {'ours': 2.0} | {peer: 2.0 * ratio for peer, ratio in ratios}
  return {'benchmark': name, 'verdict': verdict, 'unit': 's/step', 'ours': 'ours', 'ratios': dict(ratios), 'checks': {},
          'figures': {each: {'median': value, 'minimum': value, 'spread': 0.1, 'cpu': 1.0, 'count': 5}
                      for each, value in figures.items()}, 'targets': list(targets), **more, **MACHINE}


def target(name, value, least=None, most=None):
  return {'name': name, 'value': value, 'least': least, 'most': most, 'met': value >= (least or 0) and value <= (most or value),
          'wanted': f'≥ {least:g}' if least else f'≤ {most:g}'}


def card(tflops=lambda form, backward: 400.0 if form == 'ours triton' else 200.0):
  """A GPU's records: three shapes of attention by three forms, a head, steps of two sizes, and parts that failed."""
  records = [{'part': 'machine', 'card': 'Card 9, 1.0', 'torch': '8.0', **MACHINE},
             {'part': 'ceilings', 'what': 'bfloat16 product', 'tflops': 800.0},
             {'part': 'ceilings', 'what': 'copy', 'gb_per_s': 3000.0}]
  for sight in (each for each in sights(False) if each.length == 4096 and each.head_size == 128):
    for form in ('ours triton', 'torch flex', 'cudnn, array mask'):
      for backward in (False, True):
        rate, flops = tflops(form, backward), sight.flops(BOTH if backward else FORWARD)
        records.append({'part': 'attention', 'sight': sight.name, 'form': form, 'chosen': form == 'ours triton',
                        'backward': backward, 'tflops': rate, 'seconds': flops / rate / 1e12})
  records += [{'part': 'train', 'task': '124m', 'contestant': name, 'seconds': seconds, 'tokens_per_s': 32_768 / seconds,
               'mfu': mfu, 'spread': 0.02, 'equal': True}
              for name, seconds, mfu in (('ours whole', 0.1, 0.45), ('HF compiled', 0.12, 0.375))]
  records += [{'part': 'head', 'contestant': name, 'seconds': 6.4e12 / rate / 1e12, 'tflops': rate}
              for name, rate in (('ours', 500.0), ('torch eager', 250.0))]
  return [*records, {'part': 'checkpoint', 'failed': 'Traceback\nDiskIsFull'}, {'part': 'train', 'took_s': 3.0},
          {'part': 'tests', 'tests': {'passed': 57}, 'seconds': 89.25}]


def text(*files):
  """What the page says, without tags."""
  html = page.render([page.source(name, records) for name, records in files])
  assert '<script' not in html and not re.search(r'(?:src|href)="http', html) and html.count('<h1>') == 1
  return ' '.join(re.sub(r'<style>.*?</style>|<[^>]+>', ' ', html, flags=re.S).split())


def test_a_ratio_lies_where_the_scale_says():
  assert [place(ratio) for ratio in (0.25, 0.5, 1.0, 2.0, 4.0, 100.0, 0.0)] == pytest.approx([0, 25, 50, 75, 100, 100, 0])


def test_a_race_with_what_was_wanted_of_it():
  """A bar for the speed of a peer, the inverse for its time; all else that was wanted stands below."""
  told = benchmark(line(ratios=(('Slow', 2.0), ('Fast', 0.5), ('Free', 1.0)), targets=(
    target('speed of Slow', 2.0, least=1.5), target('time of Fast', 2.0, most=4.0), target('seconds', 2.0, most=3.0))))
  slow, fast, free = told.peers
  assert (slow.wanted, fast.wanted, free.wanted) == ('≥ 1.5', '≥ 0.25', '') and free.bar == ''
  assert float(slow.bar) == pytest.approx(place(1.5), abs=0.1) and float(slow.at) == pytest.approx(75)
  assert float(slow.left) < 75 < float(slow.left) + float(slow.width)
  assert [each.name for each in told.others] == ['seconds'] and len(told.targets) == 3


def test_the_page_says_what_was_measured_and_where():
  said = text(('cpu.jsonl', [line(targets=[target('speed of Slow', 1.5, least=1.1)], verdict='met'),
                             line('data', 'noisy', ratios=(('Rough', 3.0),)), line('import', 'no peers', ratios=(),
                             checks={'died': ['Gone']})]))
  for words in ('2 cores of Abacus', '2030-01-02', 'code 01234567', 'jax 9.9', 'Training step, float32', '≥ 1.1', '10%',
                f'1.50{TIMES}', 'as wanted',
                'noisy: not judged', 'peers missing: not judged', 'Not measured: Gone', 'measured on a GPU',
                'in 1 of 1 comparisons', 'meets 1 of 1 figures', '1 of 3 benchmarks were too rough'):
    assert words in said, words


def test_of_two_lines_of_a_benchmark_the_later_counts():
  said = text(('cpu.jsonl', [line(ratios=(('Old', 1.5),)), line(ratios=(('New', 1.2),))]))
  assert 'New' in said and 'Old' not in said


def test_a_card_is_drawn_and_what_failed_is_named():
  said = text(('gpu.jsonl', card()))
  for words in ('Card 9', 'torch 8.0', '800 TFLOP/s', '3,000 GB/s', '124m: 32,768 tokens a step', '327,680 tokens/s, MFU 45.0%',
                '4,096 tokens, head size 128', 'ours triton *', '400 / 400', '200 / 200', '500 TFLOP/s',
                'checkpoints (DiskIsFull)', 'decoding (it was not run)', 'tests passed', '≥ 2.5', f'2.00{TIMES}',
                f'1.20{TIMES}', 'below what was wanted'):
    assert words in said, words
  assert 'measured on a GPU' not in said and 'the loss head (' not in said


def test_races_on_a_card_take_the_worst_shape():
  races = {each.name: each for each in gpu(card()).races}
  assert set(races) == {'train-124m', 'attention-packed', 'attention-window', 'attention-causal', 'head'}
  assert races['train-124m'].verdict == 'met' and races['head'].verdict == 'met'
  flex, array = races['attention-packed'].peers
  assert (flex.name, flex.wanted, array.wanted) == ('torch flex', '≥ 1.1', '≥ 2.5')
  assert races['attention-packed'].verdict == 'missed' and flex.ratio == pytest.approx(2.0)
  assert [each.wanted for each in races['attention-causal'].peers] == ['', '']
  unequal = [each | {'equal': False} if each.get('contestant') == 'HF compiled' else each for each in card()]
  assert gpu(unequal).races[0].verdict == 'unequal'


def test_a_kernel_lies_at_its_flops_over_the_bytes_that_must_move():
  """Causal rows of L tokens: 4 K H B L (L + 1) / 2 FLOPs over four arrays of B L H K numbers of two bytes, so (L + 1) / 4."""
  points = {point.name: point for point in attention_points(card())}
  point = points['torch flex, causal 4096 x 128']
  assert point.intensity == pytest.approx(4097 / 4) and point.tflops == pytest.approx(200) and not point.ours


def test_the_roof_bends_where_copy_and_product_meet():
  drawn = str(roofline([Point('<a>', 100.0, 100.0, True, False)], 800.0, 3200.0))
  path = re.search(r'd="M[\d.]+ [\d.]+L([\d.]+) ([\d.]+)H', drawn)
  low = math.floor(math.log2(31.25)), math.floor(math.log2(100))
  frame = Frame((low[0], 10), (low[1], math.ceil(math.log2(800) + 0.1)))
  assert path and [float(part) for part in path.groups()] == pytest.approx(frame.at(250.0, 800.0), abs=0.1)
  assert '&lt;a&gt;: 100 TFLOP/s at 100 FLOPs a byte' in drawn and 'a copy: 3,200 GB/s' in drawn


def test_the_lines_that_are_kept_can_all_be_drawn(tmp_path):
  kept = sorted((ROOT / 'docs' / 'bench').glob('*.jsonl'))
  assert kept
  html = page.write(kept, tmp_path / 'new' / 'bench.html').read_text()
  assert 'NVIDIA H100' in html and all(path.name in html for path in kept) and html.count('class="card race"') > 10


def test_a_line_that_was_cut_off_is_left_out(tmp_path):
  (tmp_path / 'gpu.jsonl').write_text('\n'.join(map(json.dumps, card())) + '\n{"part": "att')
  assert len(page.lines(tmp_path / 'gpu.jsonl')) == len(card())
