"""All that a job of several processes can make, as small as it gets: an experiment file for `test_lineage.py`."""

from dataclasses import replace
from pathlib import Path

from model.sharding import MeshShape
from model.sizes import llama
from train.data.corpus import Corpus
from train.data.readers import TextFiles
from train.data.rewrite import Rewrite
from train.data.rows import Rows
from train.data.tokens import Tokens
from train.data.vocabulary import Vocabulary
from train.eval.latency import Timing
from train.eval.measure import Answering
from train.eval.report import Report
from train.paraphrase import Paraphrase
from train.run import Run, Saving, Watch

SAMPLE = Path(__file__).resolve().parents[1] / 'data' / 'sample' / '1*.txt'


def get_config() -> Report:
  """The report of a run that goes on from another, on text that the other one rewrote."""
  corpus = Corpus(name='speeches', sources=(TextFiles(str(SAMPLE), source='speeches'),), stages=(), heldout_modulo=2)
  tokens = Tokens(name='tokens', corpus=corpus, vocabulary=Vocabulary(name='pieces', corpus=corpus, size=400))
  writer = Run(name='writer', model=llama(400, width=16, layers=1, count=1), rows=Rows(tokens, length=16), batch=8,
               steps=1, watch=Watch(heldout=0), saving=Saving(every=0))
  rewriting = Rewrite(Paraphrase(writer, max_new=4, batch=8), share=0.05)
  more = replace(tokens, name='more', corpus=replace(corpus, name='rewritten', augment=(rewriting,)))
  child = replace(writer, name='child', rows=Rows(more, length=16), restore=writer, steps=2, mesh=MeshShape(fsdp=-1, data=1),
                  watch=Watch(metrics=1, heldout=1, heldout_rows=9, samples=1, prompts=('The', 'A'), sample_tokens=4))
  return Report(name='report', run=child, heldout_bytes=1000, ngram_bytes=20_000, batch=2,
                answering=Answering(answers=3, new_tokens=8, shown=1),
                timing=Timing(prompt_tokens=(8,), new_tokens=4, concurrency=(1, 2), repeats=1))
