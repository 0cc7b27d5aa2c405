"""The catalogue of bad input, as one table: what a person does wrong, and the one message that answers it.

A row is the number of the case, how to do it (a function of an empty folder), the stable id of the error, and words
that its message must hold: what is wrong, why, and what to do. `case` adds one:

    @case(13, 'data.missing-file', 'nothing.txt')
    def a_corpus_of_a_file_that_is_not_there(folder):
      Corpus(name='c', sources=(Text(str(folder / 'nothing.txt')),)).make(folder, Store(folder))
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from absl.testing import flagsaver

from model.errors import UserError

ROOT = Path(__file__).parent.parent
TOYS = ROOT / 'tests' / 'toys'
EXIT_CODES = {65, 69, 70, 74, 78}


class Case(NamedTuple):
  """One row: `do` is called with an empty folder and must raise a UserError with that id and those words."""

  number: int
  do: Callable[[Path], object]
  id: str
  words: tuple[str, ...]


CASES: list[Case] = []


def case(number: int, id: str, *words: str) -> Callable:
  """Adds the decorated function to the table."""

  def add(do: Callable[[Path], object]) -> Callable[[Path], object]:
    CASES.append(Case(number, do, id, words))
    return do

  return add


def pytest_generate_tests(metafunc):
  """Gives the one test every row of the table, however far below it the rows stand."""
  if 'row' in metafunc.fixturenames:
    metafunc.parametrize('row', CASES, ids=[f'{row.number:02d}-{row.do.__name__}' for row in CASES])


def test_bad_input_gets_one_message(row, tmp_path, monkeypatch):
  monkeypatch.syspath_prepend(str(TOYS))
  with pytest.raises(UserError) as caught:
    row.do(tmp_path)
  error = caught.value
  assert error.id == row.id
  assert not [word for word in row.words if word not in str(error)], str(error)
  assert all(part and '\n' not in part.strip() for part in (error.what, error.why, error.do)), str(error)
  assert error.exit_code in EXIT_CODES and (row.id.split('.')[0] != 'config' or error.exit_code == 78)
  assert re.fullmatch(r'[a-z]+\.[a-z0-9-]+', error.id)


# ---- configuration and flags ---------------------------------------------------------------------------------------


def launch(folder: Path, *argv: str) -> None:
  """`python -m experiments.launch` with an experiment of toys, or with the one that argv names."""
  from experiments import command
  from experiments.launch import main
  file = folder / 'bread.py'
  file.write_text('from experiments.bakery import get_config\n')
  with flagsaver.flagsaver():
    main(command.parse(['launch', f'--config={file}', f'--runs={folder / "runs"}', *argv]))


def build(model=None, **settings) -> None:
  """The functions of a training of a tiny model."""
  from model.sizes import named
  from train.build import build
  from train.objectives import NextToken
  from train.optimizer import Optimizer
  settings = {'objective': NextToken(), 'batch': 16, 'length': 16} | settings
  build(model or named('tiny'), settings.pop('objective'), Optimizer(), 10, **settings)


@case(1, 'config.unknown-flag', '--cofnig', 'nearest are --config', '--help')
def an_unknown_flag(folder):
  launch(folder, '--cofnig=x.py')


@case(1, 'config.unknown-field', '--config.baked.heet', 'nearest are heat', 'use one of heat')
def an_unknown_field(folder):
  launch(folder, '--config.baked.heet=200')


@case(1, 'config.unknown-field', '--config.minuets', 'nearest are minutes', 'flour', 'rise')
def an_unknown_field_with_three_that_are_near(folder):
  launch(folder, '--config.minuets=20')


@case(1, 'config.unknown-size', "'tinny'", 'tiny')
def a_model_size_that_has_no_such_name(folder):
  from model.sizes import named
  named('tinny')


@case(2, 'config.wrong-type', "config.minutes = 'long'", 'an int')
def a_word_for_a_number(folder):
  launch(folder, '--config.minutes=long')


@case(2, 'config.wrong-type', "config.flour.grain = 'corn'", "'rye', 'wheat'")
def a_word_that_is_none_of_the_choices(folder):
  launch(folder, '--config.flour.grain=corn')


@case(2, 'config.wrong-type', "config.rule.lr = 'fast'", 'a finite float')
def a_learning_rate_that_is_a_word(folder):
  from experiments.overrides import override
  from train.optimizer import Optimizer
  override(Optimizer(), {'rule.lr': 'fast'})


@case(3, 'config.out-of-range', '--config.baked.heat=900', '0 to 300')
def a_number_out_of_range(folder):
  launch(folder, '--config.baked.heat=900')


@case(3, 'config.out-of-range', '--config.rule.lr=-1', 'positive')
def a_learning_rate_below_zero(folder):
  from experiments.overrides import override
  from train.optimizer import Optimizer
  override(Optimizer(), {'rule.lr': '-1'})


@case(3, 'config.wrong-type', "config.rule.lr = 'nan'", 'finite')
def a_learning_rate_that_is_no_number(folder):
  from experiments.overrides import override
  from train.optimizer import Optimizer
  override(Optimizer(), {'rule.lr': 'nan'})


@case(3, 'config.not-finite', 'config.rule.lr = inf', 'finite')
def a_learning_rate_that_is_too_large_for_a_number(folder):
  from experiments.overrides import override
  from train.optimizer import Optimizer
  override(Optimizer(), {'rule.lr': '1e999'})


@case(3, 'config.out-of-range', '--config.steps=-1', 'at least 1')
def a_run_of_less_than_no_steps(folder):
  from experiments.overrides import override
  from experiments.quickstart.pretrain import get_config
  override(get_config(), {'steps': '-1'})


@case(3, 'config.out-of-range', '--config.optimizer.schedule.decay=1.2', 'share between 0 and 1')
def a_share_above_one(folder):
  from experiments.overrides import override
  from experiments.quickstart.pretrain import get_config
  override(get_config(), {'optimizer.schedule.decay': '1.2'})


@case(4, 'config.heads', 'width 64 with 7 heads', 'use 4 or 8 heads')
def heads_that_do_not_share_the_width(folder):
  from model.sizes import heads
  heads(64, 7)


@case(4, 'config.bad-value', '--config.attention.kv_heads=3', 'must divide heads = 2', 'use one of 1, 2')
def key_heads_that_do_not_divide_the_heads(folder):
  from experiments.overrides import override
  from model.sizes import named
  override(named('tiny'), {'attention.kv_heads': '3'})


@case(5, 'mesh.device-count', 'fsdp=3', 'there are 8', 'product is 8')
def a_mesh_for_another_number_of_devices(folder):
  from model.sharding import MeshShape
  MeshShape(fsdp=3).build()


@case(5, 'mesh.bad-shape', 'data=0', 'at least 1')
def a_mesh_with_no_devices_on_an_axis(folder):
  from model.sharding import MeshShape
  MeshShape(data=0)


@case(6, 'config.batch', 'batch = 12', '8 devices x 1 parts', 'use 16')
def a_batch_that_does_not_divide_among_the_devices(folder):
  build(batch=12)


@case(6, 'config.batch', 'batch = 24', '8 devices x 2 parts', 'use 32')
def a_batch_that_does_not_divide_into_parts(folder):
  build(batch=24, parts=2)


@case(7, 'config.causal-mask', 'MaskedLM', 'causal to False')
def a_masked_objective_for_a_causal_model(folder):
  from train.objectives import MaskedLM
  build(objective=MaskedLM())


@case(7, 'config.rows', '--config.objective=MaskedLM', 'rows of masked, and these are text', 'belong together')
def a_masked_objective_on_rows_that_hide_nothing(folder):
  from experiments.overrides import override
  from experiments.quickstart.pretrain import get_config
  override(get_config(), {'objective': 'MaskedLM'})


@case(7, 'config.devices', '--devices=8', 'add --dry_run')
def pretended_devices_for_a_real_run(folder):
  launch(folder, '--devices=8')


@case(7, 'config.distributed', 'one of the three is missing', '--distributed')
def half_of_a_distributed_job(folder):
  launch(folder, '--coordinator=127.0.0.1:9876')


@case(7, 'config.no-augmentation', 'ExactDuplicates', 'put it among the stages')
def a_stage_that_copies_nothing_as_augmentation(folder):
  from train.artifact import Store
  from train.data.dedupe import ExactDuplicates
  Store(folder / 'runs').make(replace(corpus(folder), augment=(ExactDuplicates(),)))


@case(8, 'model.too-long', 'rows of 2048 tokens', '1024 entries', 'at most 1024')
def rows_longer_than_the_position_table(folder):
  from model.decoder import check_length
  from model.sizes import named
  check_length(named('gpt2_124m'), 2048)


@case(8, 'model.too-long', 'rows of 64 tokens', '32 entries', 'Rotary()')
def a_run_on_rows_longer_than_the_position_table(folder):
  from model.config import Learned
  from model.sizes import named
  build(replace(named('tiny'), positions=Learned(32)), length=64)


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


# ---- tokenizer -----------------------------------------------------------------------------------------------------


@case(26, 'config.vocab', '--config.model.vocab=100', 'sotu-bpe has 2048 ids', 'set model.vocab to 2048')
def a_vocabulary_larger_than_the_embedding(folder):
  from experiments.overrides import override
  from experiments.quickstart.pretrain import get_config
  override(get_config(), {'model.vocab': '100'})


# ---- data: what can be wrong with a file of each format stands in tests/data/test_bad_data.py ------------------------


def corpus(folder: Path, heldout_modulo: int = 2):
  """Twelve short documents; one in so many is held out."""
  from train.data.corpus import Corpus
  from train.data.readers import TextFiles
  for number in range(12):
    (folder / f'{number:02d}.txt').write_text(f'{number}. A speech about the state of the union and of the people.\n' * 20)
  return Corpus(name='c', sources=(TextFiles(f'{folder}/*.txt'),), stages=(), heldout_modulo=heldout_modulo)


def tokens(folder: Path, heldout_modulo: int = 2):
  """Their tokens, made, and the store that holds them."""
  from train.artifact import Store
  from train.data.tokens import Tokens
  from train.data.vocabulary import Vocabulary
  words = corpus(folder, heldout_modulo)
  made = Tokens(name='t', corpus=words, vocabulary=Vocabulary(name='v', corpus=words, size=310))
  store = Store(folder / 'runs')
  store.make(made)
  return made, store


def batches(folder: Path, batch: int = 2, length: int = 16):
  """A source of batches of those tokens, in numpy."""
  from train.data.pipeline import Batches
  from train.data.rows import Rows
  made, store = tokens(folder)
  return Batches(Rows(made, length).visits(store), batch)


def flip(path: Path, at: int = -1) -> None:
  """One bit of a file is not what it was."""
  data = bytearray(path.read_bytes())
  data[at] ^= 1
  path.write_bytes(data)


@case(13, 'data.missing-file', 'speeches.txt', 'no file matches')
def a_text_that_is_not_there(folder):
  from train.artifact import Store
  from train.data.corpus import Corpus
  from train.data.readers import TextFiles
  Store(folder / 'runs').make(Corpus(name='c', sources=(TextFiles(f'{folder}/speeches.txt'),)))


@case(14, 'data.too-small', 'a batch takes 4096 rows', 'smaller batch')
def less_text_than_a_batch(folder):
  batches(folder, batch=4096)


@case(14, 'data.no-documents', 'no usable document', '2 records were left out')
def a_file_of_which_every_record_is_left_out(folder):
  from train.data.readers import JsonLines
  (folder / 'lines.jsonl').write_text('{"text": 1}\nno json\n')
  list(JsonLines(f'{folder}/lines.jsonl', tolerate=9).read())


@case(14, 'data.no-heldout', 'no document is held out', 'a smaller heldout_modulo')
def a_corpus_too_small_to_hold_anything_out(folder):
  from train.data.rows import Rows
  made, store = tokens(folder, heldout_modulo=10**6)
  Rows(made, 16).heldout(store)


@case(15, 'data.bad-synonyms', 'words.tsv:2', 'mend or remove the line')
def a_line_that_is_no_synonym(folder):
  from train.data.augment import synonyms
  (folder / 'words.tsv').write_text('big\tlarge, great\nsmall little\n')
  synonyms(str(folder / 'words.tsv'))


@case(15, 'data.bad-json', 'lines.jsonl:2:14')
def a_line_that_is_no_json(folder):
  from train.data.readers import JsonLines
  (folder / 'lines.jsonl').write_text('{"text": "fine"}\n{"text": "x",}\n')
  list(JsonLines(f'{folder}/lines.jsonl').read())


@case(16, 'data.no-such-field', "'body'")
def a_record_without_the_field(folder):
  from train.data.readers import JsonLines
  (folder / 'lines.jsonl').write_text('{"body": "fine"}\n')
  list(JsonLines(f'{folder}/lines.jsonl').read())


@case(17, 'data.not-utf8', 'a.txt: line 2')
def bytes_that_are_no_utf8(folder):
  from train.data.readers import TextFiles
  (folder / 'a.txt').write_bytes(b'first\nsec\xffond')
  list(TextFiles(f'{folder}/a.txt').read())


@case(19, 'data.damaged-file', 'a.jsonl.gz')
def a_gzip_that_was_cut_off(folder):
  import gzip

  from train.data.readers import JsonLines
  (folder / 'a.jsonl.gz').write_bytes(gzip.compress(b'{"text": "fine"}\n' * 5000)[:-30])
  list(JsonLines(f'{folder}/a.jsonl.gz').read())


@case(20, 'data.changed', 'train tokens', 'delete the folder and launch again')
def tokens_that_changed_since_they_were_made(folder):
  made, store = tokens(folder)
  flip(store.find(made) / 'train.npy')
  made.open(store, 'train')


@case(20, 'data.corpus-changed', 'train-00000.jsonl', 'remove the folder of the corpus')
def documents_that_changed_since_they_were_prepared(folder):
  made, store = tokens(folder)
  place = store.find(made.corpus)
  flip(place / 'documents' / 'train-00000.jsonl', at=20)
  list(made.corpus.documents(place, 'train'))


@case(25, 'mixture.negative', 'weight -1', '0 or more')
def a_mixture_with_a_negative_weight(folder):
  from train.data.mixture import Share
  from train.data.tokens import Tokens
  from train.data.vocabulary import Vocabulary
  words = corpus(folder)
  Share(Tokens(name='t', corpus=words, vocabulary=Vocabulary(name='v', corpus=words)), -1.0)


@case(25, 'mixture.all-zero', 'none has a weight above 0')
def a_mixture_of_nothing(folder):
  from train.data.mixture import Mixture
  Mixture(())


@case(27, 'generate.unknown-id', 'prompt 1 has ids from 3 to 256', '0 to 255')
def a_prompt_in_the_ids_of_a_larger_vocabulary(folder):
  import jax

  from model.decoder import build
  from model.generate import generate
  from model.sampling import GREEDY
  from model.sizes import named
  model = build(replace(named('tiny'), vocab=256))
  generate(model, {}, [[1], [3, 256]], max_new=1, sampling=GREEDY, key=jax.random.key(0))


@case(28, 'data.other-pipeline', 'tokenizer')
def a_position_in_the_ids_of_another_tokenizer(folder):
  source = batches(folder)
  position = json.loads(json.dumps(source.save()))
  for tokens in position['definition']['sources']:
    tokens['tokenizer'] = 'another'
  position['fingerprint'] = 'another'
  source.load(position)


@case(31, 'tokenizer.damaged', 'tokenizer.model')
def a_tokenizer_with_a_flipped_bit(folder):
  made, store = tokens(folder)
  flip(store.find(made.vocabulary) / 'tokenizer.model', at=99)
  made.vocabulary.load(store)


# ---- checkpoints: damage of every kind stands in tests/train/test_checkpoint.py and tests/campaign -------------------


def state(width: int = 4, dtype: str = 'float32'):
  """A small state to save."""
  import jax
  import jax.numpy as jnp

  from train.types import State
  return State(jnp.zeros((), jnp.int32), {'w': jnp.ones((width, 2), dtype)}, (), jax.random.key(0))


def saved(folder: Path) -> Path:
  """A folder with two saves of it."""
  from train.checkpoint import Checkpoints
  with Checkpoints(folder / 'saves') as saves:
    for step in (1, 2):
      saves.save(step, state(), {})
      saves.wait()
  return folder / 'saves'


def restore(folder: Path, like=None):
  """What is saved there, as `like`."""
  from train.checkpoint import Checkpoints
  with Checkpoints(folder) as saves:
    return saves.restore(like or state())


@case(33, 'checkpoint.none-whole', 'no step in it is whole')
def all_saves_are_damaged(folder):
  for path in saved(folder).rglob('integrity.json'):
    path.write_text('{')
  restore(folder / 'saves')


@case(34, 'checkpoint.none-whole', '88888')
def an_empty_folder_with_the_name_of_a_step(folder):
  (folder / 'saves' / '88888').mkdir(parents=True)
  restore(folder / 'saves')


@case(37, 'checkpoint.other-tree', 'params.w is float32 there and int32 here')
def a_checkpoint_of_another_dtype(folder):
  restore(saved(folder), state(dtype='int32'))


@case(37, 'checkpoint.other-tree', 'params.w is [4, 2] there and [5, 2] here')
def a_checkpoint_of_another_shape(folder):
  restore(saved(folder), state(width=5))


@case(39, 'checkpoint.newer-format', 'format 99', 'the version of Athanor that wrote it')
def a_checkpoint_of_a_newer_version(folder):
  import hashlib
  for path in saved(folder).rglob('integrity.json'):
    body = json.loads(path.read_text())['seal'] | {'format': 99}
    sha = hashlib.sha256(json.dumps(body, sort_keys=True, separators=(',', ':')).encode()).hexdigest()
    path.write_text(json.dumps({'sha256': sha, 'seal': body}))
  restore(folder / 'saves')


@case(40, 'data.other-pipeline', 'length was 16, is 32')
def the_position_of_another_pipeline(folder):
  (folder / 'again').mkdir()
  batches(folder / 'again', length=32).load(batches(folder).save())


@case(41, 'checkpoint.save-failed', 'step 1', 'mend the disk')
def a_folder_that_is_removed_while_it_is_in_use(folder):
  import shutil

  from train.checkpoint import Checkpoints
  with Checkpoints(folder / 'saves', pauses=()) as saves:
    shutil.rmtree(folder / 'saves')
    (folder / 'saves').write_text('in its place')
    saves.save(1, state(), {})
    saves.wait()


def pairs_of(folder: Path, **fields) -> None:
  """A file of one pair, read: as it should be but for the fields."""
  from align.preferences import PairLines
  pair = {'prompt': 'Hi', 'chosen': 'Hello!', 'rejected': 'What?'} | fields
  (folder / 'pairs.jsonl').write_text(json.dumps({name: value for name, value in pair.items() if value is not None}) + '\n')
  list(PairLines(f'{folder}/pairs.jsonl').read())


@case(56, 'pair.alike', 'pairs.jsonl:1', 'both sides say the same')
def a_pair_whose_sides_are_alike(folder):
  pairs_of(folder, rejected='Hello!')


@case(56, 'chat.empty-answer', "pairs.jsonl:1: field 'rejected'", 'says nothing')
def a_pair_with_an_answer_of_nothing(folder):
  pairs_of(folder, rejected='  ')


@case(56, 'pair.unknown-field', 'pairs.jsonl:1: choosen', 'a pair has prompt, messages, chosen')
def a_pair_with_a_field_that_is_spelt_otherwise(folder):
  pairs_of(folder, choosen='Hello!', chosen=None)


@case(56, 'pair.bad-number', "pairs.jsonl:1: field 'label' is 7", 'from 0 to 1')
def a_pair_whose_label_is_a_margin(folder):
  pairs_of(folder, label=7)


def judged_by(score: Callable[[str], float], answers: tuple[str, ...] = ('yes', 'no')) -> None:
  """What a reward of one's own says to some answers."""
  from types import SimpleNamespace

  import numpy as np

  from align.questions import Question
  from align.rewards import Answer, Jury, Part
  from model.chat import Message
  question = Question('train 3', (Message('user', 'Is it?'),))
  reward = SimpleNamespace(open=lambda setting: lambda given: [score(answer.text) for answer in given])
  Jury((Part('kind', reward),), None)([Answer(question, np.zeros(1), np.zeros(1), text, 'eos') for text in answers])


@case(57, 'reward.not-finite', "reward 'kind' = nan", "the answer 'no' to question train 3 ('Is it?')", 'finite number')
def a_reward_that_is_no_number(folder):
  judged_by(lambda answer: float('nan') if answer == 'no' else 1.0)


@case(57, 'reward.raised', "reward 'kind'", 'KeyError', 'an answer may be anything')
def a_reward_that_raises(folder):
  judged_by({'yes': 1.0}.__getitem__)


def largest(**fields):
  """The tiny experiment of GRPO with other rollouts."""
  from experiments.grpo.largest_tiny import get_config
  run = get_config()
  return replace(run, rows=replace(run.rows, **fields))


@case(58, 'config.group', 'group = 1', 'it compares the answers to a question')
def a_group_of_one(folder):
  largest(group=1)


@case(58, 'config.no-reference', 'restore = None', 'the reference is the parent')
def a_distance_from_nothing(folder):
  from align.kl import Fixed
  run = largest()
  replace(run, restore=None, rows=replace(run.rows, kl=Fixed(0.1)))


@case(59, 'rollout.long-prompts', 'prompt_tokens = 4', 'raise prompt_tokens')
def questions_that_never_fit(folder):
  from types import SimpleNamespace

  from align.rollout_source import RolloutSource
  source = object.__new__(RolloutSource)
  source.rollouts, source.asked, source.questions = SimpleNamespace(prompt_tokens=4), 0, lambda number: number
  source.crew = SimpleNamespace(writer=SimpleNamespace(prompt=lambda question: [0] * 5))
  list(source._next(1))
