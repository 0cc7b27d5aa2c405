"""Bad input to flags and configs: names, types, ranges, and values that do not go together."""

from dataclasses import replace

from tests.bad_input.given import corpus, launch
from tests.bad_input.table import Table

case = Table()


def build(model=None, **settings) -> None:
  """The functions of a training of a tiny model."""
  from model.sizes import named
  from train.build import build
  from train.objectives import NextToken
  from train.optimizer import Optimizer
  settings = {'objective': NextToken(), 'batch': 16, 'length': 16} | settings
  build(model or named('tiny'), settings.pop('objective'), Optimizer(), 10, **settings)


def overridden(config, field: str, text: str) -> None:
  """A config with one field as a flag says."""
  from experiments.overrides import override
  override(config, {field: text})


def optimizer():
  """The one that a run has by default."""
  from train.optimizer import Optimizer
  return Optimizer()


def quickstart():
  """The run of the quick start."""
  from experiments.quickstart.pretrain import get_config
  return get_config()


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
  overridden(optimizer(), 'rule.lr', 'fast')


@case(3, 'config.out-of-range', '--config.baked.heat=900', '0 to 300')
def a_number_out_of_range(folder):
  launch(folder, '--config.baked.heat=900')


@case(3, 'config.out-of-range', '--config.rule.lr=-1', 'positive')
def a_learning_rate_below_zero(folder):
  overridden(optimizer(), 'rule.lr', '-1')


@case(3, 'config.wrong-type', "config.rule.lr = 'nan'", 'finite')
def a_learning_rate_that_is_no_number(folder):
  overridden(optimizer(), 'rule.lr', 'nan')


@case(3, 'config.not-finite', 'config.rule.lr = inf', 'finite')
def a_learning_rate_that_is_too_large_for_a_number(folder):
  overridden(optimizer(), 'rule.lr', '1e999')


@case(3, 'config.out-of-range', '--config.steps=-1', 'at least 1')
def a_run_of_less_than_no_steps(folder):
  overridden(quickstart(), 'steps', '-1')


@case(3, 'config.out-of-range', '--config.optimizer.schedule.decay=1.2', 'share between 0 and 1')
def a_share_above_one(folder):
  overridden(quickstart(), 'optimizer.schedule.decay', '1.2')


@case(4, 'config.heads', 'width 64 with 7 heads', 'use 4 or 8 heads')
def heads_that_do_not_share_the_width(folder):
  from model.sizes import heads
  heads(64, 7)


@case(4, 'config.bad-value', '--config.attention.kv_heads=3', 'must divide heads = 2', 'use one of 1, 2')
def key_heads_that_do_not_divide_the_heads(folder):
  from model.sizes import named
  overridden(named('tiny'), 'attention.kv_heads', '3')


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
  overridden(quickstart(), 'objective', 'MaskedLM')


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


@case(26, 'config.vocab', '--config.model.vocab=100', 'sotu-bpe has 2048 ids', 'set model.vocab to 2048')
def a_vocabulary_larger_than_the_embedding(folder):
  overridden(quickstart(), 'model.vocab', '100')
