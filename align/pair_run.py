"""A run that learns from pairs: the ordinary run, with rows of pairs and an objective that wants them.

    reward = PreferenceRun(name='reward', ..., restore=chat, rows=PairRows(pairs), edits=(Score(),), objective=RewardModel())
    dpo = PreferenceRun(name='dpo', ..., restore=chat, rows=PairRows(Scored(name='reference', pairs=pairs, by=chat)))
"""

from dataclasses import dataclass

from align.dpo import DPO, IPO, ORPO, Hinge, Preference, SimPO
from align.pair_rows import PairRows, Scored
from align.reward import RewardModel, Score
from model.adapt import DoRA, LoRA, Merge
from model.errors import ConfigError
from model.quantize import Quantize
from train.artifact import digest, how
from train.canonical import added
from train.run import Run, Watch


@dataclass(frozen=True, kw_only=True)
class PreferenceRun(Run):
  """One training on pairs. `batch` counts pairs of the global batch.

  Raises: ConfigError where what is compared with is missing or is another than the parent, or a head that scores.
  """

  rows: PairRows                                                         # type: ignore[assignment]
  objective: RewardModel | DPO | IPO | Hinge | SimPO | ORPO = DPO()      # type: ignore[assignment]
  edits: tuple[LoRA | DoRA | Quantize | Merge | Score, ...] = added(())  # type: ignore[assignment]
  watch: Watch = how(Watch(heldout=0))

  def __post_init__(self):
    super().__post_init__()
    if self.watch.heldout:
      raise ConfigError('config.heldout', f'watch.heldout = {self.watch.heldout}', 'the held-out loss of a run is of text, '
                        'not of pairs', 'set watch.heldout to 0')
    if isinstance(self.objective, RewardModel) != any(isinstance(edit, Score) for edit in self.lineage_of_edits):
      raise ConfigError('config.score', f'objective = {type(self.objective).__name__}, edits = {self.lineage_of_edits}',
                        'a reward model scores with a head that only it has',
                        'set edits to (Score(),), or use another objective')
    if isinstance(self.objective, RewardModel) and any(isinstance(edit, LoRA) for edit in self.edits):
      raise ConfigError('config.score', f'edits = {self.edits}', 'beside adapters nothing learns, so the new head would not',
                        'leave LoRA out of the edits: the whole model learns')
    if isinstance(self.objective, Preference) and self.objective.referred:
      self._check_reference()

  def _check_reference(self) -> None:
    pairs = self.rows.pairs
    if isinstance(pairs, Scored):
      if self.restore is None or digest(pairs.by) != digest(self.restore):
        raise ConfigError('config.other-reference', f'rows scored by {pairs.by.name}', 'a policy begins as its reference',
                          'set restore to the run that scored the pairs')
    elif not any(isinstance(edit, LoRA) for edit in self.edits):
      raise ConfigError('dpo.no-reference', f'objective = {type(self.objective).__name__}, rows of {pairs.name}',
                        'the policy is compared with what it was',
                        'use PairRows(Scored(..., by=the parent)), or edits=(LoRA(),)')
