"""The chat template that a run was trained with, so that its model is asked in the same one."""

from align.label_tokens import LabelTokens
from align.pair_tokens import PairTokens
from align.reference import Reference
from align.rollout import Rollouts
from align.sft import ChatTokens
from model.chat import Template
from train.artifact import parents
from train.published import Published
from train.run import Parent


def template_of(run: Parent) -> Template | None:
  """The template of the conversations, pairs or labels that the run learnt from; None if it learnt from none."""
  if isinstance(run, Published):
    return run.template
  rows = run.rows
  if isinstance(rows, Rollouts):
    return rows.template
  read = [thing.answers if isinstance(thing, Reference) else thing for thing in parents(rows)]
  return next((thing.template for thing in read if isinstance(thing, ChatTokens | PairTokens | LabelTokens)), None)
