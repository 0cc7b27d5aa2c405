"""Laws of things that can be made and found again: digests, files that name them, and their folders."""

import dataclasses
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from model.errors import ConfigError, DataError, StorageError
from train.artifact import MADE, Artifact, Store, decode, digest, encode, how, lineage, parents
from train.lives import changes, last_life

ROOT = Path(__file__).parents[2]
TOYS = ROOT / 'tests' / 'toys'


@pytest.fixture(autouse=True)
def toys(monkeypatch):
  monkeypatch.syspath_prepend(str(TOYS))


def bread(**fields):
  from experiments.bakery import Bread, Flour
  return Bread(**({'name': 'bread', 'flour': Flour(name='flour')} | fields))


def flour(**fields):
  from experiments.bakery import Flour
  return Flour(**({'name': 'flour'} | fields))


def test_digest_is_the_same_in_every_process():
  code = 'from experiments.bakery import get_config; from train.artifact import digest; print(digest(get_config()))'
  seen = {subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True, capture_output=True, text=True,
                         env=os.environ | {'PYTHONPATH': str(TOYS), 'PYTHONHASHSEED': seed}).stdout.strip()
          for seed in ('1', '2')}
  assert seen == {digest(bread())}


def test_digest_ignores_the_order_of_a_dict():
  assert digest({'a': 1, 'b': 2}) == digest({'b': 2, 'a': 1}) != digest({'a': 2, 'b': 1})


def test_every_field_that_says_what_changes_the_digest():
  from experiments.bakery import Oven, Pan
  things = [bread(), bread(minutes=41), bread(baked=Oven(221.0)), bread(baked=Pan(oil=1.0)), bread(seeds=('x',)),
            bread(seeds=('x', 'y')), bread(motto=''), bread(rise=1.6), bread(flour=flour(grain='wheat'))]
  assert len({digest(thing) for thing in things}) == len(things)


def test_names_and_how_change_nothing():
  assert digest(bread(threads=8, name='loaf', flour=flour(name='meal'))) == digest(bread())


def test_a_whole_float_and_an_int_are_one_number_and_true_is_none():
  assert digest({'x': 1.0}) == digest({'x': 1}) != digest({'x': True})
  assert digest({'x': 0.1}) != digest({'x': 0})


@pytest.mark.parametrize('fields', [{}, {'seeds': ('a', 'b'), 'motto': 'Brot & "Öl"\n'}, {'rise': 1e-300}])
def test_written_down_and_read_again_it_is_equal(fields):
  thing = bread(**fields)
  again = decode(json.loads(json.dumps(encode(thing))))
  assert again == thing and digest(again) == digest(thing)


def test_an_int_in_a_float_field_is_read_as_a_float():
  assert type(decode(encode(bread(rise=2))).rise) is float


HOSTILE = [
    {'type': 'os.system'}, {'type': 'subprocess.Popen', 'args': ['true']}, {'type': 'builtins.eval'},
    {'type': 'model'}, {'type': ''}, {'type': None}, {'type': ['a']}, {'type': '../train.artifact.Store'},
    {'type': 'train.artifact.os.system'}, {'type': 'train.artifact.Store.__class__'}, {'type': 'train.nothing.Here'},
    {'type': 'model..errors.UserError'}, {'type': 'model.errors.UserError'}, {'type': 'train.artifact.dataclass'},
    {'type': 'train.metrics.MetricsLog', 'folder': '/tmp', 'every': 1},      # it opens files, and is not frozen
    {'type': 'experiments.launch.Store', 'root': '/'},
]


@pytest.mark.parametrize('data', HOSTILE, ids=lambda data: str(data['type']))
def test_a_file_can_name_only_frozen_dataclasses_of_the_rooms(data):
  with pytest.raises(ConfigError) as caught:
    decode(data)
  assert caught.value.id == 'config.unknown-type'


def test_a_file_with_a_wrong_type_inside_is_refused_by_path_before_anything_is_built():
  data = encode(bread())
  data['baked']['heat'] = 'hot'
  with pytest.raises(ConfigError, match=r'config\.baked\.heat') as caught:
    decode(data)
  assert caught.value.id == 'config.wrong-type' and 'float' in caught.value.why


def test_of_a_long_value_a_message_shows_the_beginning():
  data = encode(bread())
  data['minutes'] = 'x' * 5000
  with pytest.raises(ConfigError, match=r"minutes = 'xxx.*\.\.\. \(str\)") as caught:
    decode(data)
  assert len(caught.value.what) < 200


@pytest.mark.parametrize('spoil, id', [
    (lambda d: d.update(heat=1), 'config.unknown-field'), (lambda d: d.pop('flour'), 'config.missing-field'),
    (lambda d: d['baked'].update(heat=999.0), 'config.out-of-range'),
    (lambda d: d.update(minutes=True), 'config.wrong-type'), (lambda d: d.update(seeds='abc'), 'config.wrong-type'),
    (lambda d: d['flour'].update(grain='corn'), 'config.wrong-type'),
    (lambda d: d.update(flour={'type': 'experiments.bakery.Oven'}), 'config.wrong-type'),
])
def test_a_spoilt_file_is_refused(spoil, id):
  data = encode(bread())
  spoil(data)
  with pytest.raises(ConfigError, match='config') as caught:
    decode(data)
  assert caught.value.id == id


@pytest.mark.parametrize('value', [print, int, b'bytes', 1j, {1: 2}, {'type': 'x'}, object(), Path('x'), {1}])
def test_what_cannot_be_written_down_is_refused(value):
  with pytest.raises(ConfigError) as caught:
    encode({'x': value})
  assert caught.value.id == 'config.not-a-value'


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
def test_a_number_that_is_none_is_refused(value):
  with pytest.raises(ConfigError, match='finite'):
    digest({'x': value})


def test_lineage_is_parents_first_and_each_once():
  @dataclasses.dataclass(frozen=True, kw_only=True)
  class Node(Artifact):
    below: tuple[Artifact, ...] = ()

    def make(self, folder, store):
      pass

  root = Node(name='root')
  left, right = (Node(name=name, below=(root, Node(name='leaf', below=(root,)))) for name in ('left', 'right'))
  top = Node(name='top', below=(left, dataclasses.replace(right, below=(root,))))
  order = lineage(top)
  assert order[0] == root and order[-1] == top and len({digest(t) for t in order}) == len(order)
  for thing in order:
    assert all(digest(p) in {digest(t) for t in order[:order.index(thing)]} for p in parents(thing))


def test_lineage_of_many_diamonds_is_quick():
  @dataclasses.dataclass(frozen=True, kw_only=True)
  class Pair(Artifact):
    left: Artifact | None = None
    right: Artifact | None = None
    level: int = 0

    def make(self, folder, store):
      pass

  thing = Pair(name='a')
  for level in range(1, 9):
    thing = Pair(name='a', left=thing, right=thing, level=level)
  assert len(lineage(thing)) == 9


def test_makes_what_is_missing_and_nothing_twice(tmp_path):
  store = Store(tmp_path)
  folder = store.make(bread())
  assert json.loads((folder / 'bread.json').read_text()) == ['rye', 40]
  stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')}
  assert store.make(bread()) == folder
  store.make(bread(minutes=50))
  assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items() if path.is_file())
  assert len(list(tmp_path.glob('flour-*'))) == 1 and len(list(tmp_path.glob('bread-*'))) == 2


def test_what_was_cut_off_is_not_made_and_is_made_by_the_next_life(tmp_path, monkeypatch):
  store, thing = Store(tmp_path), bread(minutes=1)
  with pytest.raises(KeyboardInterrupt):
    store.make(thing)
  folder = store.place(thing)
  assert not store.made(thing) and not (folder / 'crash.json').exists() and thing.remains(folder) == 'as dough'
  with pytest.raises(DataError, match='launch it first'):
    store.find(thing)
  monkeypatch.setattr(type(thing), 'make', lambda self, folder, store: None)
  assert store.find(thing) == folder if store.make(thing) else False
  assert len((folder / 'lives.jsonl').read_text().splitlines()) == 2


def test_a_bug_leaves_its_traceback_and_the_next_life_takes_it_away(tmp_path):
  store, thing = Store(tmp_path), bread(minutes=0)
  for _ in range(2):
    with pytest.raises(RuntimeError, match='an empty oven'):
      store.make(thing)
  crash = json.loads((store.place(thing) / 'crash.json').read_text())
  assert any('an empty oven' in line for line in crash['traceback']) and crash['environment']['packages']['jax']
  assert not store.made(thing)


def test_a_full_disk_is_no_bug_whatever_was_being_written_and_another_failure_of_the_system_is_one(tmp_path, monkeypatch):
  def fails(number):
    def make(self, folder, store):
      raise OSError(number, os.strerror(number), str(folder / 'dough'))
    return make

  store, thing = Store(tmp_path), bread()
  monkeypatch.setattr(type(thing), 'make', fails(errno.ENOSPC))
  with pytest.raises(StorageError, match=r'cannot-write.*dough\n  why: No space left') as refused:
    store.make(thing)
  assert refused.value.exit_code == 74 and not (store.place(thing) / 'crash.json').exists() and not store.made(thing)
  monkeypatch.setattr(type(thing), 'make', fails(errno.EIO))
  with pytest.raises(OSError, match='Input/output'):
    store.make(thing)
  assert (store.place(thing) / 'crash.json').exists()


def test_what_changed_between_two_lives_is_known(tmp_path):
  store, thing = Store(tmp_path), bread(minutes=1)
  with pytest.raises(KeyboardInterrupt):
    store.make(thing)
  folder = store.place(thing)
  assert changes(folder, encode(thing), digest(thing)) == {}
  other = dataclasses.replace(thing, threads=4)
  assert changes(folder, encode(other), digest(other)) == {'threads': (1, 4)}
  life = last_life(folder) | {'environment': last_life(folder)['environment'] | {'python': '3.0'}}
  with open(folder / 'lives.jsonl', 'a') as file:
    file.write(json.dumps(life) + '\n{"torn')
  assert set(changes(folder, encode(other), digest(other))) == {'threads', 'environment.python'}


def test_a_folder_that_holds_another_run_is_refused_and_the_difference_shown(tmp_path):
  store, mine, other = Store(tmp_path), bread(), bread(minutes=77)
  store.make(other)
  store.place(other).rename(store.place(mine))
  with pytest.raises(StorageError, match='minutes was 77 and is 40') as caught:
    store.make(mine)
  assert caught.value.id == 'store.other-run'


def test_other_roots_are_found_and_never_written(tmp_path):
  first, thing = Store(tmp_path / 'a'), bread()
  first.make(thing)
  before = sorted((path, path.stat().st_mtime_ns) for path in first.root.rglob('*'))
  second = Store(tmp_path / 'b', others=(first.root,))
  assert second.make(thing) == first.folder(thing) and not second.root.exists()
  second.make(bread(minutes=50))
  assert [path.name for path in second.root.iterdir()] == [second.place(bread(minutes=50)).name]
  assert sorted((path, path.stat().st_mtime_ns) for path in first.root.rglob('*')) == before


NAMES = ['', '.', '..', '../x', 'a/../../b', '/etc', 'a/b', 'a\\b', 'C:\\x', 'a\0b', 'a\nb', '\uff0e\uff0e', 'a' * 129,
         ' a', '-rf', 'ä', '~', '$HOME', 'a b', '.hidden', 'a..b', 'x;y', '*', 'con:', 'a\u202eb', 'a\n', None, 7]


@pytest.mark.parametrize('name', NAMES, ids=repr)
def test_a_name_cannot_lead_out_of_the_root(tmp_path, name):
  with pytest.raises(ConfigError) as caught:
    Store(tmp_path / 'runs').make(bread(name=name))
  assert caught.value.id == 'config.bad-name' and not any((tmp_path / 'runs').glob('bread*'))


@pytest.mark.parametrize('name', ['a', 'gpt2_124m', 'Chat-v1.2', '0', 'a' * 128])
def test_plain_names_lie_right_under_the_root(tmp_path, name):
  place = Store(tmp_path).place(bread(name=name))
  assert place.resolve().parent == tmp_path.resolve() and place.name.startswith(name)


def test_a_damaged_mark_is_an_error_and_not_a_silent_second_making(tmp_path):
  store = Store(tmp_path)
  folder = store.make(bread())
  for text in (b'', b'{"digest": ', b'[NaN]', b'[' * 100_000, b'\xff', b'[]', b'{}', b'7'):
    (folder / MADE).write_bytes(text)
    with pytest.raises(DataError, match=MADE):
      store.made(bread())


def test_how_fields_take_defaults_like_others():
  @dataclasses.dataclass(frozen=True)
  class Thing:
    a: int = how(3)
    b: tuple[int, ...] = how(default_factory=tuple)

  assert Thing() == Thing(3, ()) and digest(Thing()) == digest(Thing(4, (1,)))
