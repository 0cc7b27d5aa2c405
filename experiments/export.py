"""Exports a trained model: as a Hugging Face folder, a GGUF file, or its adapters alone as a PEFT folder.

  python -m experiments.export --run=runs/sotu-lm-1f3a9c42d0 --into=exported/sotu
  python -m experiments.export --run=runs/sotu-lm-1f3a9c42d0 --into=exported/sotu --dtype=bfloat16
  python -m experiments.export --run=runs/sotu-lm-1f3a9c42d0 --into=exported/sotu.gguf --format=gguf --dtype=q8_0
  python -m experiments.export --run=runs/chat-lora-77d0c1a2b3 --into=exported/adapters --format=peft --base=exported/sotu

transformers loads the folder (AutoModelForCausalLM, or AutoModelForSequenceClassification for a classifier with its head on the
first token; AutoTokenizer), llama.cpp loads the file, and PEFT adds the adapters to the model of the run's parent, which has to
be exported too. For the first two formats adapters are merged, in float32, and the command prints the largest change of a logit
by that. Existing files are never overwritten, and an incomplete export never has the final name.
"""

from pathlib import Path

from experiments import interrupt

if __name__ == '__main__':
  interrupt.leave_at_once()             # before JAX is imported, which takes a second

from absl import flags

from align.template_of import template_of
from experiments import command
from experiments.load import context, load_model
from model.adapt import LoRA
from model.errors import ConfigError
from model.new_tokens import newest
from model.weights.classifiers import export_classifier
from model.weights.exporting import KINDS, Exported, check_new, export, export_gguf
from model.weights.peft import write_peft
from train.artifact import Store
from train.data.class_rows import ClassRows
from train.run import Run
from train.trained import Trained
from train.trained import load as open_run

flags.declare_key_flag('run')
INTO = flags.DEFINE_string('into', '', 'The folder, or the .gguf file, that is written.')
FORMAT = flags.DEFINE_enum('format', 'hf', ['hf', 'gguf', 'peft'], 'What is written.')
DTYPE = flags.DEFINE_enum('dtype', None, [*KINDS, 'q8_0'], 'The dtype that is written. Default: float32, and float16 in GGUF.')
BASE = flags.DEFINE_string('base', None, 'The base model of adapters, as PEFT should find it: a folder, or a name on a hub.')
DEQUANTISE = flags.DEFINE_bool('dequantise', False, 'Write quantised matrices dequantised.')

DTYPES = {'hf': KINDS, 'gguf': ('float16', 'float32', 'q8_0'), 'peft': ('float32',)}
FEW_BITS = ('edit.merge-quantised', 'weights.quantised')      # what --dequantise is for
GGUF = {'float32': 'F32', 'float16': 'F16', 'q8_0': 'Q8_0'}


def main(overrides: command.Overrides) -> int:
  """Exit code 0 when all is written."""
  command.no_overrides(overrides)
  target, kind = place(INTO.value, FORMAT.value), dtype(FORMAT.value, DTYPE.value)
  run, folder = load_model(command.RUN.value)
  store = Store(folder.parent)
  trained = open_run(run, store)
  if FORMAT.value == 'peft':
    print(f'{target}: {adapters(target, trained)} tensors of adapters')
    return 0
  if FORMAT.value == 'hf' and (labels := classes(trained)):
    print(f'{target}: {export_classifier(target, trained.model.config, trained.params, trained.tokenizer, labels)} in float32, '
          f'classes {", ".join(labels)}')
    return 0
  write, name = (export, kind) if FORMAT.value == 'hf' else (export_gguf, GGUF[kind])
  try:
    tell(target, kind, write(target, trained.model.config, trained.params, trained.tokenizer, template_of(run), name,
                             DEQUANTISE.value, context(run, store)))
  except ConfigError as error:
    if error.id not in FEW_BITS:
      raise
    raise ConfigError(error.id, error.what, error.why, 'add --dequantise for matrices in many bits') from error
  return 0


def classes(trained: Trained) -> tuple[str, ...]:
  """The classes of a classifier with its head on the first token, as transformers has them; () for any other model."""
  run = trained.run
  if isinstance(run, Run) and isinstance(run.rows, ClassRows) and 'token' in trained.params.get('classifier', {}):
    return run.rows.tokens.classes
  return ()


def place(to: str, form: str) -> Path:
  """The path to write. Raises: ConfigError where none is given, it does not suit the format, or it exists."""
  if not to or (form == 'gguf') != to.endswith('.gguf'):
    raise ConfigError('export.no-place', f'--into={to} --format={form}',
                      'a GGUF file ends in .gguf, and a folder does not' if to else 'nothing says where it should be written',
                      'give for example --into=exported/mine, or --into=exported/mine.gguf --format=gguf')
  check_new(Path(to))
  return Path(to)


def dtype(form: str, asked: str | None) -> str:
  """The dtype to write. Raises: ConfigError for one that the format does not have."""
  kind = asked or ('float16' if form == 'gguf' else 'float32')
  if kind not in DTYPES[form]:
    raise ConfigError('export.dtype', f'--dtype={kind} --format={form}', f'it is written in {", ".join(DTYPES[form])}',
                      'choose one of them')
  return kind


def adapters(target: Path, trained: Trained) -> int:
  """Writes the run's adapters as a PEFT folder, with the scaling that they were trained with: the number of tensors.

  Raises: ConfigError where the run also learned rows for new tokens, which PEFT cannot hold.
  """
  if newest(trained.run.lineage_of_edits):
    raise ConfigError('peft.new-tokens', trained.run.name, 'it learnt rows for new tokens beside its adapters, and PEFT lays '
                      'adapters over a model that has none', 'give the merged model: --format=hf')
  edits = trained.run.edits if isinstance(trained.run, Run) else ()
  last = next((edit for edit in reversed(edits) if isinstance(edit, LoRA)), LoRA())
  return write_peft(target, trained.model.config, trained.params, BASE.value, last.scaling)


def tell(target: Path, kind: str, made: Exported) -> None:
  """Prints what was written, the largest change of a logit by merging, and what was left out."""
  print(f'{target}: {made.family}, {made.tensors} tensors in {kind}')
  if made.change:
    print(f'merged adapters move a logit by {made.change:.3g} at most')
  for each in made.left_out:
    print(f'not in it: {each}')


if __name__ == '__main__':
  command.run(main)
