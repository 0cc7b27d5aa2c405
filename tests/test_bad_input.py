"""The catalogue of bad input: what a person does wrong, and the one message that answers it.

A row is the number of the case, how to do it (a function of an empty folder), the stable id of the error, and words
that its message must hold: what is wrong, why, and what to do. The rows stand in tests/bad_input.
"""

import re
from pathlib import Path

import pytest

from model.errors import UserError
from tests.bad_input import checkpoints, configuration, data, folders, judgement

TOYS = Path(__file__).parent / 'toys'
EXIT_CODES = {65, 69, 70, 74, 78}
ROWS = [row for rows in (configuration, folders, data, checkpoints, judgement) for row in rows.case]


@pytest.mark.parametrize('row', ROWS, ids=[f'{row.number:02d}-{row.do.__name__}' for row in ROWS])
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
