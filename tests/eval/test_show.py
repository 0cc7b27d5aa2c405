"""Numbers and text as the report writes them; hostile text is shown, never obeyed."""

import re

import numpy as np
import pytest
from markupsafe import Markup

from train.eval.plots import NAME, Curve, Level, moving_average, plot, short, spread
from train.eval.show import NONE as DASH
from train.eval.show import Grid, duration, fixed, grids, number, percent, scaled, settings, show, visible


@pytest.mark.parametrize('text, shown', [
  ('<script>alert("1")</script>', '&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt;'),
  ('a\tb\n  c', 'a\tb\n  c'),
  ('\x00', '<span class="ctl">\\x00</span>'),
  ('\x1b[31m', '<span class="ctl">\\x1b</span>[31m'),
  ('\r', '<span class="ctl">\\x0d</span>'),
  ('\u202eevil', '<span class="ctl">\\u202e</span>evil'),
  ('\ud800', '<span class="ctl">\\ud800</span>'),
  ('zero\u200bwidth', 'zero<span class="ctl">\\u200b</span>width'),
  ('été 中文 🙂', 'été 中文 🙂'),
  ('&lt;', '&amp;lt;'),
])
def test_text_is_escaped_and_what_cannot_be_seen_is_written_out(text, shown):
  assert visible(text) == shown
  assert isinstance(visible(text), Markup)
  visible(text).encode()


@pytest.mark.parametrize('value, text', [
  (None, DASH), (True, 'yes'), (0, '0'), (1234567, '1,234,567'), (0.12345, '0.1235'), (12345.6, '12,346'),
  (float('nan'), 'not finite'), ([1, '<b>'], '1, &lt;b&gt;'), ({'a': '<'}, '{&#34;a&#34;: &#34;&lt;&#34;}'),
])
def test_cells(value, text):
  assert show(value) == text


def test_units():
  assert [scaled(x) for x in (None, 0.5, 950, 12_345, 4_190_000, 7e9, 9.89e14)] == [
    (DASH, ''), ('0.5', ''), ('950', ''), ('12.3', 'k'), ('4.19', 'M'), ('7', 'G'), ('989', 'T')]
  assert [duration(x) for x in (0.25, 59, 171, 11_520, 187_200)] == [
    '0.25 s', '59 s', '2 min 51 s', '3 h 12 min', '2 d 4 h']
  assert (fixed(1.4342, 2), percent(0.4312), number(3e-4)) == ('1.43', '43.1%', '0.0003')
  assert [short(x) for x in (0.0003, 250, 1200, 12_000, 1.5e6, 3.2e9)] == [
    '0.0003', '250', '1,200', '12k', '1.5M', '3.2B']


def test_numbers_stand_right_and_words_left():
  assert Grid.of(['a', 'b', 'c', 'd'], [[1, 'x', None, percent(0.5)], [2.5, 'y', None, percent(None)]]).right == [
    True, False, True, True]


def test_every_leaf_of_a_tree_is_in_some_grid():
  tree = {'size': 5, 'empty': {}, 'none': None, 'list': [1, 2], 'rows': [{'a': 1}, {'b': 2}],
          'by': {'x': {'n': 3}, 'y': {'n': 4}}, 'deep': {'er': {'est': 6, 'too': 'end'}}}
  found = [cell for grid in grids(tree) for row in grid.rows for cell in row]
  assert all(leaf in found for leaf in (5, None, [1, 2], 1, 2, 3, 4, 6, 'end', {}))


def test_settings_are_paths():
  config = {'type': 'T', 'steps': 1200, 'model': {'type': 'M', 'width': 64, 'tied': True},
            'parts': [{'name': 'a'}, {'name': 'b'}]}
  assert settings(config).rows == [['type', 'T'], ['steps', '1200'], ['model', 'M'], ['model.width', '64'],
                                   ['model.tied', True], ['parts.0.name', 'a'], ['parts.1.name', 'b']]


def test_moving_average_passes_over_what_is_no_number():
  np.testing.assert_allclose(moving_average(np.array([1.0, np.nan, 3.0, 5.0]), 1), [1.0, 2.0, 4.0, 4.0])
  assert np.isnan(moving_average(np.array([np.nan, np.nan]), 1)).all()


def test_a_plot_is_self_contained_and_has_the_colours_of_the_page():
  drawn = plot([Curve('a', range(50), np.linspace(3, 1, 50), kind='smooth'), Curve('b', [0, 10], [3, 2], kind='dots')],
               label='Loss <of> "x"', levels=[Level('gzip', 2.0)])
  assert drawn.startswith('<svg role="img" aria-label="Loss &lt;of&gt; &quot;x&quot;"')
  assert not re.search(r'https?:|<style|<script|#[0-9a-f]{6}\b(?!\w)', drawn)
  assert {'var(--ember)', 'var(--line)', 'var(--quiet)'} <= set(re.findall(r'var\(--\w+\)', drawn))
  assert '>gzip</text>' in drawn


def test_names_of_levels_that_lie_close_are_drawn_apart():
  assert spread([10, 50], 12) == [10, 50] and spread([10, 10], 12) == [4, 16] and spread([0, 1, 40], 12) == [-5.5, 6.5, 40]
  assert spread([10, 21, 32], 12) == pytest.approx([9, 21, 33])
  drawn = plot([Curve('a', [1, 2], [1.0, 3.0])], label='x', levels=[Level(f'{n}-gram', 1.4 + n / 1000) for n in (5, 7, 6)])
  places = {name: float(y) for y, name in re.findall(r' y="([\d.]+)"[^>]*>(\d)-gram', drawn)}
  assert places['5'] - places['6'] > NAME - 0.5 and places['6'] - places['7'] > NAME - 0.5


def test_the_same_plot_is_the_same_bytes():
  curve = Curve('a', [1, 2, 3], [1.0, 2.0, 3.0])
  assert plot([curve], label='x') == plot([curve], label='x')


@pytest.mark.parametrize('y', [[1.0], [float('nan'), 1.0], [0.0, 0.0], [-1.0, 1e30]])
@pytest.mark.parametrize('how', [{}, {'log': True}, {'zero': True}, {'percent': True}])
def test_odd_curves_are_drawn_too(y, how):
  assert '</svg>' in plot([Curve('a', range(len(y)), y)], label='odd', **how)
