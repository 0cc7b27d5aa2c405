"""How a run that was stopped and resumed differs from one that never was: `python -m tests.gpu.stopped FOLDER`.

The small training of tests/campaign at every third step, once more with its optimizer forgotten, which must be seen, and
a run as people launch it.
"""

import json
import sys
from pathlib import Path

import jax

from tests.campaign import real
from tests.campaign.resume import FORGET, resumed, straight_run
from tests.campaign.trainer import live


def launched(root: Path):
  """Launches a real run; folders after the first get what it is made from out of that."""
  def launch(folder: Path) -> Path:
    if not folder.exists() and (root / 'real').exists():
      real.parents(root / 'real', folder)
    return real.live(folder)

  return launch


if __name__ == '__main__':
  root = Path(sys.argv[1])
  small = straight_run(live, root / 'small')
  real_run = launched(root)
  print(json.dumps({
    'backend': jax.default_backend(),
    'small': resumed(live, small, root / 'again', (3, 7)),
    'forgotten': list(resumed(live, small, root / 'forgotten', (8,), FORGET['optimizer'])),
    'real': resumed(real_run, straight_run(real_run, root / 'real'), root / 'real-again', (3,))}))
