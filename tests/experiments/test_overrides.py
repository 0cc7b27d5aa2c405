"""Overrides on the command line: the meaning of each spelling, and the message for each mistake."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import pytest

from experiments.overrides import override, places
from model.errors import ConfigError
from train.artifact import digest, lineage
from train.typecheck import check


@dataclass(frozen=True)
class Adam:
  lr: float = 1e-3
  betas: tuple[float, float] = (0.9, 0.95)

  def __post_init__(self):
    if self.lr <= 0:
      raise ConfigError('config.out-of-range', f'lr = {self.lr}', 'a rate is above 0', 'use 1e-3')


@dataclass(frozen=True)
class Muon:
  lr: float
  others: Adam = Adam()
  kind: Literal['polar', 'newton-schulz'] = 'polar'


class Source(Protocol):
  def __call__(self) -> int: ...


@dataclass(frozen=True)
class Text:
  path: str
  weight: float = 1.0


@dataclass(frozen=True)
class Net:
  width: int = 64
  heads: int = 4

  def __post_init__(self):
    if self.width % self.heads:
      raise ConfigError('config.heads', f'width = {self.width}', f'it does not divide by {self.heads}', 'use 64')


@dataclass(frozen=True)
class Config:
  steps: int = 100
  rule: Adam | Muon = Adam()
  last: Adam | None = None
  seed: int | None = 0
  kind: Literal['a', 'b-c', 'none', 3] = 'a'
  fast: bool = False
  name: str = 'x'
  motto: str | None = None
  sizes: tuple[int, ...] = (1, 2)
  words: tuple[str, ...] = ()
  sources: tuple[Text, ...] = (Text('a.txt'), Text('b.txt', 2.0))
  source: Source = Text('c')
  net: Net = Net()
  either: int | str = 0
  parent: 'Config | None' = None


MEANINGS = [
    ('steps=7', 7), ('steps=1_000', 1000), ('steps=-3', -3), ('seed=None', None), ('seed=none', None), ('seed=5', 5),
    ('rule.lr=3e-4', 3e-4), ('rule.lr=1', 1.0), ('rule.lr=.5', 0.5), ('fast=true', True), ('fast=False', False),
    ('kind=b-c', 'b-c'), ('kind=none', 'none'), ('kind=3', 3), ('name=None', 'None'), ('name=7', '7'), ('name=', ''),
    ('name=a b, c=d', 'a b, c=d'), ('name="q"', 'q'), ('motto=None', None), ('motto="None"', 'None'),
    ('motto=Öl', 'Öl'),
    ('sizes=1,2,3', (1, 2, 3)), ('sizes=(5,)', (5,)), ('sizes=[6, 7]', (6, 7)), ('sizes=()', ()), ('sizes.1=9', 9),
    ('words=a,b', ('a', 'b')), ("words=('a b', \"c\")", ('a b', 'c')), ('rule.betas=0.8, 1', (0.8, 1.0)),
    ('rule.betas.0=0', 0.0), ('rule=Adam', Adam()), ('rule=Muon(lr=0.01)', Muon(0.01)), ('last=Adam', Adam()),
    ('rule=Muon(lr=1, others=Adam(lr=2), kind="newton-schulz")', Muon(1.0, Adam(2.0), 'newton-schulz')),
    ('sources.1.weight=4', 4.0), ('sources.0.path=/x/y.txt', '/x/y.txt'), ('either=4', 4), ('either=four', 'four'),
]


def at(config: Any, path: str) -> Any:
  for name in path.split('.'):
    config = config[int(name)] if name.isdigit() else getattr(config, name)
  return config


@pytest.mark.parametrize('flag, meaning', MEANINGS, ids=[flag for flag, _ in MEANINGS])
def test_what_a_value_means(flag, meaning):
  path, _, text = flag.partition('=')
  value = at(override(Config(), {path: text}), path)
  assert value == meaning and type(value) is type(meaning)


def test_only_the_named_field_changes():
  changed = override(Config(), {'sources.1.weight': '4'})
  assert dataclasses.replace(changed, sources=Config().sources) == Config()


def test_parents_are_reached_through_fields():
  config = Config(parent=Config(parent=Config()))
  assert override(config, {'parent.parent.net.width': '8'}).parent.parent.net.width == 8


def test_a_class_is_chosen_first_and_its_fields_are_set_then_in_any_order():
  changes = {'rule.others.lr': '3', 'rule': 'Muon(lr=2)', 'rule.kind': 'newton-schulz'}
  assert override(Config(), changes).rule == Muon(2.0, Adam(3.0), 'newton-schulz')


def test_fields_that_only_fit_together_are_set_together():
  for changes in ({'net.width': '60', 'net.heads': '5'}, {'net.heads': '5', 'net.width': '60'}):
    assert override(Config(), changes).net == Net(60, 5)


def test_values_that_are_no_text_are_taken_as_they_are_and_checked():
  assert override(Config(), {'rule': Muon(1.0), 'steps': 3, 'words': ('x',)}).rule == Muon(1.0)
  with pytest.raises(ConfigError, match=r'config\.steps = 1\.5'):
    override(Config(), {'steps': 1.5})


MISTAKES = [      # flags, error id, words that must be in the message
    ('stesp=3', 'config.unknown-field', '--config.stesp steps nearest Config net rule'),
    ('rule.lrr=3', 'config.unknown-field', '--config.rule.lrr lr betas Adam'),
    ('lr=3', 'config.unknown-field', 'did you mean --config.rule.lr? one of'),
    ('rule.width=3', 'config.unknown-field', '--config.rule.width Adam use'),
    ('zzz.lr=3', 'config.unknown-field', '--config.zzz nearest steps sources'),
    ('rule=Adam(lrr=3)', 'config.unknown-field', '--config.rule=Adam(lrr=...) lr betas'),
    ('rule=Muon', 'config.missing-field', '--config.rule=Muon.lr float'),
    ('steps=fast', 'config.wrong-type', "config.steps 'fast' int"),
    ('steps=1.5', 'config.wrong-type', 'config.steps 1.5 int'),
    ('steps=', 'config.wrong-type', 'config.steps int'),
    ('steps=True', 'config.wrong-type', 'config.steps bool int'),
    ('fast=1', 'config.wrong-type', 'config.fast True False'),
    ('kind=c', 'config.wrong-type', "config.kind 'b-c'"),
    ('rule.lr=fast', 'config.wrong-type', 'config.rule.lr finite float'),
    ('rule.lr=nan', 'config.wrong-type', 'config.rule.lr finite float'),
    ('rule.lr=-inf', 'config.wrong-type', 'config.rule.lr finite float'),
    ('rule.lr=1e999', 'config.not-finite', 'config.rule.lr inf finite'),
    ('rule.lr=-1e999', 'config.not-finite', 'config.rule.lr -inf finite'),
    ('rule=Lion', 'config.wrong-type', 'config.rule Lion Adam Muon'),
    ('rule=3', 'config.wrong-type', 'config.rule Adam Muon'),
    ('sizes=3', 'config.wrong-type', 'config.sizes tuple int (3,)'),
    ('sizes=1,x', 'config.wrong-type', "config.sizes.1 'x' int"),
    ('rule.betas=1,2,3', 'config.wrong-type', 'config.rule.betas tuple finite float'),
    ('rule.lr=-1', 'config.out-of-range', '--config.rule.lr=-1 rate above'),
    ('rule=Muon(lr=1, others=Adam(lr=0))', 'config.out-of-range', '--config.rule.others=Adam rate'),
    ('net.heads=7', 'config.heads', '--config.net.heads=7 divide'),
    ('last.lr=1', 'config.no-fields', '--config.last.lr None --config.last=NAME Adam'),
    ('steps.x=1', 'config.no-fields', '--config.steps.x 100'),
    ('sources.2.weight=1', 'config.no-element', 'sources.2 0 1'),
    ('sources.-1.weight=1', 'config.no-element', 'sources.-1'),
    ('words.0=a', 'config.no-element', 'config.words itself'),
    ('rule..lr=1', 'config.unknown-field', '--config.rule. nearest'),
    ('=3', 'config.unknown-field', '--config. nearest'),
]


@pytest.mark.parametrize('flag, id, words', MISTAKES, ids=[flag for flag, *_ in MISTAKES])
def test_how_a_mistake_is_answered(flag, id, words):
  path, _, text = flag.partition('=')
  with pytest.raises(ConfigError) as caught:
    override(Config(), {path: text})
  assert caught.value.id == id and caught.value.exit_code == 78
  assert not [word for word in words.split() if word not in str(caught.value)], str(caught.value)


CODE = ["__import__('os').system('touch {marker}')", "open('{marker}', 'w')", "Adam(lr=open('{marker}', 'w'))",
        "[x for x in (open('{marker}', 'w'),)]", "(lambda: open('{marker}', 'w'))()", "f'{{open(chr(47), 0)}}'",
        "Adam.__init__.__globals__", "Adam(**{{'lr': 1}})", "Adam(1)", "2**99999999", "'a' * 10**9", '(' * 9999]


@pytest.mark.parametrize('path', ['rule', 'steps', 'sizes', 'source'])
@pytest.mark.parametrize('code', CODE, ids=range(len(CODE)))
def test_values_are_never_evaluated(path, code, tmp_path):
  marker = tmp_path / 'marker'
  with pytest.raises(ConfigError):
    override(Config(), {path: code.format(marker=marker)})
  assert not marker.exists()


def test_check_finds_a_wrong_type_at_any_depth():
  check(Config(parent=Config()))
  wrong = object.__new__(Adam)
  object.__setattr__(wrong, 'lr', '1')
  object.__setattr__(wrong, 'betas', (0.9, 0.95))
  with pytest.raises(ConfigError, match=r'config\.parent\.rule\.lr'):
    check(Config(parent=Config(rule=wrong)))
  with pytest.raises(ConfigError, match=r'config\.sources\.1\.path'):
    check(Config(sources=(Text('a'), Text(5))))      # type: ignore[arg-type]
  with pytest.raises(ConfigError, match=r'config\.rule\.lr = nan'):
    check(Config(rule=Adam(float('nan'))))


INSTEAD = [       # a value that does not fit, and what the answer says to write in its place
    ({'steps': '8'}, "config.steps = '8' (str)", 'it must be an int', 'give 8, without quotes'),
    ({'steps': '8e2'}, "(str)", 'an int', 'give 800, without quotes'), ({'steps': 800.0}, '(float)', 'an int', 'give 800'),
    ({'steps': np.int64(8)}, '(int64)', 'an int', 'give 8'), ({'steps': None}, '(NoneType)', 'an int', 'leave it out'),
    ({'steps': 8.5}, '(float)', 'an int', 'give a value of that type'), ({'steps': True}, '(bool)', 'an int', 'of that type'),
    ({'rule': Adam}, '(type)', 'Adam or Muon', 'give Adam(...), with brackets'),
    ({'rule': 'adam'}, '(str)', 'Adam or Muon', 'give the value itself, Adam(...)'),
    ({'words': ['a', 'b']}, '(list)', 'a tuple', "give a tuple: ('a', 'b')"),
    ({'words': 'a'}, '(str)', 'a tuple', "give ('a',): it is the comma"),
    ({'words': ('a', 3)}, 'config.words.1 = 3 (int)', 'a str', 'of that type'),
    ({'sources': Text('a')}, '(Text)', 'a tuple of Text', 'it is the comma'),
    ({'sources': 'a.txt'}, '(str)', 'a tuple of Text', 'as in (Text(...),)'),
    ({'rule': Muon(1.0), 'last': Muon(1.0)}, 'config.last', 'Adam or None', 'give a value of that type'),
    ({'parent': Net()}, '(Net)', 'Config or None', 'it is a part of that: give Config(net=Net(...))'),
]


@pytest.mark.parametrize('fields, what, why, do', INSTEAD, ids=[repr(fields) for fields, *_ in INSTEAD])
def test_a_wrong_type_is_told_with_what_to_write_instead(fields, what, why, do):
  with pytest.raises(ConfigError) as caught:
    check(Config(**fields))
  error = caught.value
  assert what in error.what and why in error.why and do in error.do, str(error)


def test_what_is_shared_is_changed_everywhere_by_the_paths_to_its_places():
  from experiments.quickstart.stages import get_config
  config = get_config()
  before = config.stages[0].run
  found = list(places(config, before))
  assert {'config.stages.0.run', 'config.stages.1.run.restore'} <= set(found)
  changed = override(config, {f'{path.removeprefix("config.")}.steps': 10 for path in found})
  assert digest(before) in map(digest, lineage(config)) and digest(before) not in map(digest, lineage(changed))
