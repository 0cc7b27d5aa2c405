"""Names, descriptions and comparisons of states."""

import jax
import jax.numpy as jnp
import pytest

from model.errors import CheckpointError
from train.saving.leaves import Leaf, abstract_bits, bits, compare, describe, from_bits, named
from train.types import State


def test_names_say_where_a_leaf_is():
  state = State(jnp.zeros((), jnp.int32), {'a': {'w': jnp.ones(2)}, 'frozen': None}, ({'mu': jnp.ones(2)}, ()), None)
  assert list(named(state)) == ['step', 'params.a.w', 'opt_state.0.mu']


def test_two_leaves_of_one_name_are_not_mixed_up():
  with pytest.raises(ValueError, match='two leaves'):
    named({'a': {'b': 1}, 'a.b': 2})


@pytest.mark.parametrize('generator', ['threefry2x32', 'rbg', 'unsafe_rbg'])
@pytest.mark.parametrize('shape', [(), (3,)])
def test_keys_come_back_as_keys(generator, shape):
  key = jax.random.split(jax.random.key(5, impl=generator), shape) if shape else jax.random.key(5, impl=generator)
  data = bits({'key': key})['key']
  like = abstract_bits(key)
  assert (like.shape, like.dtype) == (data.shape, data.dtype)
  again = from_bits(jax.eval_shape(lambda: key), data)
  assert again.dtype == key.dtype and (jax.random.key_data(again) == jax.random.key_data(key)).all()


STORED = {'w': Leaf((2, 3), 'float32'), 'b': Leaf((3,), 'float32'), 'key': Leaf((), 'key<fry>')}


def test_equal_states_pass_and_parts_of_states_pass_as_parts():
  compare(STORED, STORED, 'here')
  compare({'w': STORED['w']}, STORED, 'here', whole=False)


@pytest.mark.parametrize('wanted, told', [
    ({**STORED, 'c': Leaf((1,), 'int8')}, r'1 not in the checkpoint: c \(int8\[1\]\)'),
    ({name: STORED[name] for name in ('w', 'key')}, r'1 only in the checkpoint: b \(float32\[3\]\)'),
    ({**STORED, 'w': Leaf((3, 2), 'float32')}, r'w is \[2, 3\] there and \[3, 2\] here'),
    ({**STORED, 'w': Leaf((2, 3), 'int32')}, 'w is float32 there and int32 here'),
    ({**STORED, 'w': Leaf((2, 3), 'bfloat16')}, 'w is float32 there and bfloat16 here'),
    ({**STORED, 'key': Leaf((), 'key<rbg>')}, 'key is key<fry> there and key<rbg> here'),
    ({f'l{i}': Leaf((), 'int8') for i in range(9)} | STORED, '9 not in the checkpoint: .* and 4 more'),
])
def test_differences_are_named(wanted, told):
  with pytest.raises(CheckpointError, match=told) as refusal:
    compare(wanted, STORED, 'here')
  assert refusal.value.id == 'checkpoint.other-tree'


def test_descriptions_of_arrays_and_of_shapes_agree():
  array = jnp.zeros((2, 3), jnp.bfloat16)
  assert describe(array) == describe(jax.eval_shape(lambda: array)) == Leaf((2, 3), 'bfloat16')
