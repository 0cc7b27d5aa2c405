"""Programs of these tests in processes of their own, where another platform or other flags of XLA are wanted."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def told_by(module: str, *arguments: str, **environment: str) -> Any:
  """What `python -m module` says in its last line, as JSON; `environment` is set on top of this process's own."""
  done = subprocess.run([sys.executable, '-m', module, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300,
                        check=False, env=os.environ | environment)
  assert done.returncode == 0, done.stderr[-3000:]
  return json.loads(done.stdout.splitlines()[-1])
