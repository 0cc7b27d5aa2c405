"""Launches for tests, in this process or in one of their own."""

import os
import subprocess
import sys
from pathlib import Path

from absl.testing import flagsaver

from experiments import command, launch

ROOT = Path(__file__).parents[2]
TOYS = ROOT / 'tests' / 'toys'


def go(*argv: str) -> int:
  """`python -m experiments.launch ARGV` in this process; errors are raised."""
  with flagsaver.flagsaver():
    overrides = command.parse(['launch', *argv])
    return launch.main(overrides)


def shell(*argv: str) -> subprocess.Popen:
  """`python -m experiments.launch ARGV` in a process of its own."""
  environment = {name: value for name, value in os.environ.items() if name != 'XLA_FLAGS'}
  return subprocess.Popen([sys.executable, '-m', 'experiments.launch', *argv], cwd=ROOT, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment | {'PYTHONPATH': str(TOYS)})
