"""In which template a run was taught, so that its model is asked as it was taught."""

from align.label_tokens import LabelTokens
from align.pair_tokens import PairTokens
from align.reference import Reference
from align.rollout import Rollouts
from align.sft import ChatTokens
from model.chat import Template
from train.artifact import parents
from train.types import Feed


def template_of(rows: Feed) -> Template | None:
  """How the conversations among these rows are written; None without any."""
  if isinstance(rows, Rollouts):
    return rows.template
  read = [thing.answers if isinstance(thing, Reference) else thing for thing in parents(rows)]
  return next((thing.template for thing in read if isinstance(thing, ChatTokens | PairTokens | LabelTokens)), None)
