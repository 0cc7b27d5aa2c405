"""Duplicates and contamination, on texts that were written to be alike."""

import json
import random

import numpy as np
import pytest

from model.errors import ConfigError, DataError
from train.data.decontaminate import Decontaminate, EvaluationSet
from train.data.dedupe import ExactDuplicates, NearDuplicates
from train.data.document import Document
from train.data.ngrams import hashed, runs, words
from train.data.readers import JsonLines, TextFiles


def survivors(stage, texts: list[str]) -> list[int]:
  """Which of the texts a stage that looks at them in order lets through."""
  judge = stage.open()
  return [i for i, text in enumerate(texts) if judge(stage.sign(Document(text, 'test', str(i)))) is None]


def prose(seed: int, count: int = 400) -> list[str]:
  draw = random.Random(seed)
  return [f'w{draw.randrange(500)}' for _ in range(count)]


def jaccard(a: list[str], b: list[str], n: int = 5) -> float:
  one, other = ({tuple(text[i:i + n]) for i in range(len(text) - n + 1)} for text in (a, b))
  return len(one & other) / len(one | other)


def test_the_first_of_equal_texts_stays():
  assert survivors(ExactDuplicates(), ['a', 'b', 'a', 'a ', 'b', 'A']) == [0, 1, 3, 5]


def test_near_duplicates_go_and_the_first_stays():
  text = prose(0)
  near = [*text[:-1], 'edited']                       # similarity 0.997
  touched = [*text[:200], 'x', *text[201:]]           # 0.975
  half = [*text[:200], *prose(1, 200)]                # 0.33
  assert jaccard(text, touched) > 0.9 and jaccard(text, half) < 0.4
  texts = [' '.join(each) for each in (text, near, prose(2), half, touched)]
  assert survivors(NearDuplicates(), texts) == [0, 2, 3]
  assert survivors(NearDuplicates(), texts[::-1]) == [0, 1, 2], 'whichever comes first'


def test_case_punctuation_and_white_space_do_not_make_a_text_new():
  text = ' '.join(prose(3))
  assert survivors(NearDuplicates(), [text, text.upper().replace(' ', ',  ')]) == [0]


def test_texts_without_words_and_very_short_ones_are_no_duplicates_of_each_other():
  assert survivors(NearDuplicates(), ['', '...', 'one two', 'one three', 'One, two!']) == [0, 1, 2, 3]


def test_a_document_is_compared_with_those_that_were_kept_only():
  a = prose(4)
  b = a[:340] + prose(5, 60)                # near a
  c = b[:40] + prose(6, 60) + b[100:]       # near b, far from a
  stage = NearDuplicates(similarity=0.62, permutations=512)
  assert jaccard(a, b) > 0.7 and jaccard(b, c) > 0.7 and jaccard(a, c) < 0.55
  assert survivors(stage, [' '.join(each) for each in (a, b, c)]) == [0, 2]


@pytest.mark.parametrize('share', [0.2, 0.5, 0.9])
def test_signatures_estimate_the_similarity(share):
  stage = NearDuplicates(permutations=1024)
  a, b = prose(7, 2000), prose(8, 2000)
  mixed = a[:int(2000 * share)] + b[int(2000 * share):]
  signs = [stage.sign(Document(' '.join(each), 'test', '')) for each in (a, mixed)]
  assert signs[0].jaccard(signs[1]) == pytest.approx(jaccard(a, mixed), abs=4 / 32)     # four standard deviations


def test_runs_of_words_are_equal_where_the_words_are():
  hashes = hashed(words('to be or not to be, or not TO-BE'))
  assert len(set(hashes)) == 4
  found = runs(hashes, 3)
  assert len(found) == 8 and found[0] == found[4] and found[1] == found[5] and len(set(found)) == 4
  assert not len(runs(hashes, 11)) and not len(hashed([]))


def test_hashes_of_words_are_the_same_everywhere():
  assert hashed(['union']).tolist() == [6268004011470631445]
  assert runs(np.arange(3, dtype=np.uint64), 2).tolist() == [11400714836765684190, 16682901113285979678]


@pytest.fixture
def known(tmp_path) -> tuple[EvaluationSet, ...]:
  items = ('Which of the presidents held office for the longest time and until which year did he?',
           'name the capital of the fourth state', 'Too short to count')
  (tmp_path / 'quiz.jsonl').write_text('\n'.join(json.dumps({'text': item}) for item in items))
  (tmp_path / 'poem.txt').write_text(' '.join(f'verse{i}' for i in range(40)))
  return (EvaluationSet('quiz', JsonLines(f'{tmp_path}/quiz.jsonl')),
          EvaluationSet('poem', TextFiles(f'{tmp_path}/poem.txt')))


@pytest.mark.parametrize('text, reason', [
  ('He asked: which of the Presidents held office for the longest time, and until which year did he?', 'quotes quiz'),
  ('which of the presidents held office for the longest time but not until then', None),          # 11 words in common
  ('a ' * 50 + ' '.join(f'verse{i}' for i in range(20, 33)) + ' b' * 50, 'quotes poem'),          # 13 words
  ('a ' * 50 + ' '.join(f'verse{i}' for i in range(20, 32)) + ' b' * 50, None),                   # 12 words
  ('so name the capital of the fourth state, please', None),                                      # 7 words: too short an item
  ('too short to count', None),
  ('', None),
])
def test_decontamination(known, text, reason):
  outcome = Decontaminate(known).open()(Document(text, 'test', 'id'))
  assert [each.name for each in outcome.reasons] == ([reason] if reason else [])


def test_shorter_items_count_as_a_whole_if_they_may(known):
  stage = Decontaminate(known, fewest=7)
  assert not stage.open()(Document('Name the capital of the Fourth State!', 'test', 'id')).documents
  assert stage.files() == [path for each in known for path in each.reader.files()]


def test_evaluation_sets_must_be_there_and_have_names(known, tmp_path):
  with pytest.raises(ConfigError):
    Decontaminate((known[0], known[0]))
  with pytest.raises(DataError, match='no file matches'):
    Decontaminate((EvaluationSet('gone', TextFiles(f'{tmp_path}/gone.txt')),)).open()
