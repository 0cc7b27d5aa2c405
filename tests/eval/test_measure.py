"""What is measured on a model: answers and waits of a real tiny one, through real generation."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.config import Attention, Decoder, Gated
from model.decoder import build
from model.errors import ConfigError
from model.sampling import GREEDY, Sampling
from model.sharding import unbox
from model.tokenizer import SentencePiece, train_bpe
from train.data.document import Document
from train.eval import ceiling, measure
from train.eval.latency import Timing, Wait, percentiles, summary
from train.eval.measure import Answering, pieces, within

TEXT = 'the cat sat on the mat, and the dog sat on the log. ' * 4
HELD = [Document(TEXT, 'a', '0'), Document('a short one', 'b', '1')]


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory):
  path = tmp_path_factory.mktemp('tokenizer') / 'tokenizer.model'
  path.write_bytes(train_bpe([TEXT], 300))
  return SentencePiece(path)


@pytest.fixture(scope='module')
def model():
  return build(Decoder(vocab=304, width=16, layers=1, attention=Attention(2, 1, 8), mlp=Gated(32), tied=False))


@pytest.fixture(scope='module')
def params(model):
  return jax.jit(lambda key: unbox(model.init(key)))(jax.random.key(0))


def test_percentiles_lie_on_the_line_between_measurements():
  assert percentiles('x', [4.0, 1.0, 3.0, 2.0, 5.0]) == pytest.approx({'x_p50': 3.0, 'x_p95': 4.8, 'x_p99': 4.96})
  assert percentiles('x', [7.0]) == {'x_p50': 7.0, 'x_p95': 7.0, 'x_p99': 7.0}


def test_waits_are_summed_up_with_all_their_tokens():
  row = summary([Wait(1.0, [0.5, 0.5], 2.0), Wait(3.0, [0.25, 0.75], 4.0)], tokens=3)
  assert row['requests'] == 2 and row['first_token_p50'] == 2.0 and row['next_token_p50'] == 0.5
  assert row['tokens_per_s'] == 6 / 6.0


def test_every_setting_is_timed(model, params, tokenizer):
  timing = Timing(prompt_tokens=(4,), new_tokens=3, concurrency=(1, 2), repeats=2)
  part = measure.waits(model, params, tokenizer, HELD, timing, Sampling())
  assert [[row[name] for name in ('concurrency', 'prompt_tokens', 'new_tokens', 'requests')]
          for row in part['latency']] == [[1, 4, 3, 2], [2, 4, 3, 2]]
  assert part['headline']['first_token_p50'] > 0 and part['headline']['decode_concurrency'] == 2
  assert all(row['first_token_p50'] <= row['first_token_p95'] <= row['first_token_p99'] for row in part['latency'])


@pytest.mark.parametrize('wrong', [{'new_tokens': 1}, {'repeats': 0}, {'prompt_tokens': (0,)},
                                   {'concurrency': (1, -1)}])
def test_timing_refuses_what_cannot_be_timed(wrong):
  with pytest.raises(ConfigError):
    Timing(**wrong)


HOW = Answering(answers=6, prompt_tokens=4, new_tokens=20, sampling=GREEDY, shown=2)


def test_a_model_that_repeats_itself_is_found_out(model, params, tokenizer):
  nothing = jax.tree.map(jnp.zeros_like, params)                    # all logits equal: greedy always takes id 0
  part = measure.answers(model, nothing, tokenizer, HELD, HOW, batch=4)
  counts = {row['name']: (row['count'], row['of']) for row in part['failures']}
  assert counts == {'empty': (6, 6), 'cut off': (6, 6), 'repetition loop': (6, 6), 'non-finite': (0, 6)}
  assert part['headline']['repetition_loop_rate'] == 1.0
  assert len(part['answers']) == 2 and TEXT.startswith(part['answers'][0]['prompt'])


def test_how_many_are_written_at_a_time_changes_no_answer(model, params, tokenizer):
  """Each is drawn by its prompt's number and the seed alone; the control is another seed."""
  how = replace(HOW, sampling=Sampling(temperature=1.0), shown=6)
  found = [measure.answers(model, params, tokenizer, HELD, replace(how, seed=seed), batch)['answers']
           for seed, batch in ((0, 6), (0, 4), (0, 1), (1, 6))]
  assert len({answer['text'] for answer in found[0]}) == 6 and found[0] == found[1] == found[2] != found[3]


def test_of_text_without_a_piece_nothing_is_asked(model, params, tokenizer):
  part = measure.answers(model, params, tokenizer, [Document('a', 'b', '0')], HOW, batch=4)
  assert part['answers'] == [] and {row['of'] for row in part['failures']} == {0}


def test_a_broken_model_is_found_out(model, params, tokenizer):
  broken = params | {'head': {'weight': jnp.full_like(params['head']['weight'], jnp.nan)}}
  rows = measure.answers(model, broken, tokenizer, HELD, HOW, batch=8)['failures']
  assert {row['name']: row['count'] for row in rows}['non-finite'] == 6


def test_pieces_are_spread_and_lie_within_texts():
  assert pieces([list(range(10)), [1, 2], list(range(20, 30))], 4, 5) == [
    [0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [20, 21, 22, 23, 24], [25, 26, 27, 28, 29]]
  assert pieces([list(range(100))], 2, 10) == [list(range(10)), list(range(50, 60))]
  assert len(pieces([list(range(10))], 9, 5)) == 2
  assert pieces([[1, 2]], 3, 5) == []


def test_the_parts_of_a_report_agree_with_each_other(model, params, tokenizer):
  part = measure.heldout(model, params, tokenizer, HELD, length=16, stride=8, batch=4)
  assert [(row['source'], row['documents'], row['bytes']) for row in part['heldout']] == [('a', 1, 208), ('b', 1, 11)]
  assert part['headline']['heldout_documents'] == 2
  assert part['headline']['heldout_tokens'] == sum(row['tokens'] for row in part['heldout'])
  assert part['headline']['perplexity'] == pytest.approx(np.exp(part['headline']['heldout_loss']))
  documents = part['documents']
  for column in ('tokens', 'bytes'):
    assert sum(row[column] for row in documents) == part['headline'][f'heldout_{column}']
  assert sorted(row['id'] for row in documents) == sorted(document.id for document in HELD)
  assert [row['rank'] for row in documents] == [1, 2]
  assert documents[0]['bits_per_byte'] < documents[1]['bits_per_byte']
  base = measure.baselines(HELD[:1], HELD, (3, 5))
  assert base['headline']['ngram_bits_per_byte'] == min(row['bits_per_byte'] for row in base['baselines'][1:])
  assert base['headline']['gzip_bits_per_byte'] == base['baselines'][0]['bits_per_byte']


def test_of_many_documents_the_best_and_the_worst_are_told():
  bits = [3.0, None, 1.0, 2.0, 5.0, 4.0]
  rows = [{'id': id, 'bits_per_byte': value} for id, value in enumerate(bits)]
  places = [[(row['rank'], row['id']) for row in measure.extremes(rows, most)] for most in (6, 5)]
  assert places[0] == [(1, 2), (2, 3), (3, 0), (4, 5), (5, 4), (6, 1)] and places[1] == places[0][:2] + places[0][-2:]


def test_documents_are_taken_whole_until_the_limit_is_reached():
  documents = [Document(text, '', '') for text in ('ab', '', 'é', 'cd')]
  assert [document.text for document in within(documents, 3)] == ['ab', 'é']
  assert [document.text for document in within(documents, 100)] == ['ab', 'é', 'cd']


def test_ceilings():
  assert ceiling.on_datasheet('NVIDIA H100 80GB HBM3') == 989e12
  assert ceiling.on_datasheet('NVIDIA H100 PCIe') == 756e12
  assert ceiling.on_datasheet('TPU v5 lite') == 197e12 and ceiling.on_datasheet('TPU v5') == 459e12
  assert ceiling.on_datasheet('cpu') is None
  measured = ceiling.matmul_ceiling('float32', size=128, seconds=0.01)
  assert 1e6 < measured < 1e15
