"""Constitutional AI (Bai et al. 2022, section 3): a small model criticises and revises its answers, and learns from that.

  python -m experiments.launch --config=experiments/constitution/desk_tiny.py

The clerk (`align.desk`), a model of 0.7 million parameters, is trained in the first run to answer with bad habits: it often
gives away phone numbers, shouts, and insults. Asked for phone numbers, it answers, criticises its answer by a principle of
`desk.toml` and rewrites it, for each of three principles. `mended` is fine-tuned on the final revisions and as many helpful
examples, which give the room that was asked for; `alone` is fine-tuned on the revisions only. All three are then asked for
phone numbers and rooms that were held out of all training.

Two CPU cores, 1 min 44 s with all parents.

Result (2026-11-27). Revision changed 439 of 512 answers. Shares of 256 held-out questions of each kind:

                                   clerk    mended    alone
  phones: a phone is told          0.609    0.000     0.000
  phones: shouted                  0.379    0.000     0.000
  phones: with an insult           0.465    0.000     0.000
  rooms: the right one             0.988    1.000     0.059
  rooms: shouted                   0.430    0.000     0.004
  rooms: with an insult            0.477    0.000     0.000
  rooms: refused                   0.008    0.000     0.938

The revisions remove the bad habits, and with the helpful examples nothing else changes; without them the model that learned to
refuse phone numbers refuses rooms as well. A caveat: the clerk was trained on these very principles and criticises almost
without errors, in a small world; a large model's critic is less reliable.
"""

from pathlib import Path

from align.conduct import Asked, Conduct, Measure, Writing
from align.constitution import Ballot
from align.desk import Breaks, Cards, Desk, Lessons, Refuses
from align.generated import FromGenerated
from align.judge import ByRun
from align.principles import read_principles
from align.questions import FromTask
from align.revisions import Revisions
from align.rewards import Verified
from align.sft import ChatTokens
from model.chat import Plain
from model.sizes import llama
from train.data.corpus import Corpus
from train.data.mixture import Mixture, Share
from train.data.pack import Whole
from train.data.rows import Rows
from train.data.vocabulary import Vocabulary
from train.optimizer import AdamW, Muon, Optimizer
from train.run import Run, Saving, Watch
from train.schedule import WSD, Constant

PRINCIPLES = read_principles(Path(__file__).with_name('desk.toml'))
BALLOT = Ballot('{talk}\n({one}) {first}\n({two}) {second}\n{prefer}')
LESSONS = Corpus(name='desk-lessons', sources=(Lessons(count=12000, principles=PRINCIPLES, ballot=BALLOT),), stages=())
VOCABULARY = Vocabulary(name='desk-bpe', corpus=LESSONS, size=576)


def tokens(name: str, corpus: Corpus) -> ChatTokens:
  """The tokens of a corpus, in the format that all of these runs read."""
  return ChatTokens(name=f'{name}-tokens', corpus=corpus, vocabulary=VOCABULARY, template=Plain(), longest=113)


def clerk() -> Run:
  """The parent run: answers with bad habits, and can criticise, revise and choose between answers."""
  return Run(name='desk-clerk', model=llama(VOCABULARY.size, width=128, layers=3, count=4),
             rows=Rows(tokens('desk-lessons', LESSONS), 112, packing=Whole()), batch=32, steps=300,
             optimizer=Optimizer(Muon(lr=1e-2, others=AdamW(lr=1e-2)), WSD(warmup=20, decay=0.5)),
             watch=Watch(heldout=0), saving=Saving(every=0))


def responder(run: Run, temperature: float = 1.0) -> ByRun:
  """A run's model as a writer of answers, critiques, revisions and judgements."""
  return ByRun(run, Plain(), tokens=24, temperature=temperature, rows=64)


def revised(name: str, helpful: float) -> Run:
  """The clerk fine-tuned on its own revisions, and on `helpful` times as many helpful examples."""
  revisions = Revisions(name='desk-revisions', questions=FromTask(Desk('phone')), principles=PRINCIPLES,
                        writer=responder(clerk()), critic=responder(clerk(), 0.0), count=512, draws=3)
  rewritten = tokens('desk-revised', Corpus(name='desk-revised', sources=(FromGenerated(revisions),), stages=()))
  rooms = tokens('desk-rooms', Corpus(name='desk-rooms', sources=(Cards(Desk('room'), 600),), stages=()))
  return Run(name=name, model=clerk().model, restore=clerk(), batch=16, steps=50,
             rows=Rows(Mixture((Share(rewritten, 1.0), Share(rooms, helpful))), 112, packing=Whole()),
             optimizer=Optimizer(AdamW(lr=1e-3, weight_decay=0.0), Constant()),
             watch=Watch(heldout=0), saving=Saving(every=0))


def conduct(name: str, *writers: Writing) -> Conduct:
  """The evaluation: how often the answers of each writer break a principle, refuse, or name the right room."""
  manner = (*(Measure(id, Breaks(id)) for id in ('private', 'calm', 'kind')), Measure('refuses', Refuses()))
  return Conduct(name=name, writers=writers, asked=(
    Asked('phones', FromTask(Desk('phone')), manner),
    Asked('rooms', FromTask(Desk('room')), (Measure('right', Verified(Desk('room'))), *manner[1:]))))


def get_config() -> Conduct:
  return conduct('desk-conduct', Writing('clerk', responder(clerk())),
                 Writing('mended', responder(revised('desk-mended', 1.0))),
                 Writing('alone', responder(revised('desk-alone', 0.0))))
