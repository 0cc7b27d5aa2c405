"""Bad data, from texts to prompts. What can be wrong with a file of each format stands in tests/data/test_bad_data.py."""

import json
from dataclasses import replace

from tests.bad_input.given import batches, corpus, tokens
from tests.bad_input.table import Table
from tests.data.noticed import flip

case = Table()


@case(13, 'data.missing-file', 'speeches.txt', 'no file matches')
def a_text_that_is_not_there(folder):
  from train.artifact import Store
  from train.data.corpus import Corpus
  from train.data.readers import TextFiles
  Store(folder / 'runs').make(Corpus(name='c', sources=(TextFiles(f'{folder}/speeches.txt'),)))


@case(14, 'data.too-small', 'a batch takes 4096 rows', 'smaller batch')
def less_text_than_a_batch(folder):
  batches(folder, batch=4096)


@case(14, 'data.no-documents', 'no usable document', '2 records were left out')
def a_file_of_which_every_record_is_left_out(folder):
  from train.data.readers import JsonLines
  (folder / 'lines.jsonl').write_text('{"text": 1}\nno json\n')
  list(JsonLines(f'{folder}/lines.jsonl', tolerate=9).read())


@case(14, 'data.no-heldout', 'no document is held out', 'a smaller heldout_modulo')
def a_corpus_too_small_to_hold_anything_out(folder):
  from train.data.rows import Rows
  made, store = tokens(folder, heldout_modulo=10**6)
  Rows(made, 16).heldout(store)


@case(15, 'data.bad-synonyms', 'words.tsv:2', 'mend or remove the line')
def a_line_that_is_no_synonym(folder):
  from train.data.augment import synonyms
  (folder / 'words.tsv').write_text('big\tlarge, great\nsmall little\n')
  synonyms(str(folder / 'words.tsv'))


@case(15, 'data.bad-json', 'lines.jsonl:2:14')
def a_line_that_is_no_json(folder):
  from train.data.readers import JsonLines
  (folder / 'lines.jsonl').write_text('{"text": "fine"}\n{"text": "x",}\n')
  list(JsonLines(f'{folder}/lines.jsonl').read())


@case(16, 'data.no-such-field', "'body'")
def a_record_without_the_field(folder):
  from train.data.readers import JsonLines
  (folder / 'lines.jsonl').write_text('{"body": "fine"}\n')
  list(JsonLines(f'{folder}/lines.jsonl').read())


@case(17, 'data.not-utf8', 'a.txt: line 2')
def bytes_that_are_no_utf8(folder):
  from train.data.readers import TextFiles
  (folder / 'a.txt').write_bytes(b'first\nsec\xffond')
  list(TextFiles(f'{folder}/a.txt').read())


@case(19, 'data.damaged-file', 'a.jsonl.gz')
def a_gzip_that_was_cut_off(folder):
  import gzip

  from train.data.readers import JsonLines
  (folder / 'a.jsonl.gz').write_bytes(gzip.compress(b'{"text": "fine"}\n' * 5000)[:-30])
  list(JsonLines(f'{folder}/a.jsonl.gz').read())


@case(20, 'data.changed', 'train tokens', 'delete the folder and launch again')
def tokens_that_changed_since_they_were_made(folder):
  made, store = tokens(folder)
  flip(store.find(made) / 'train.npy')
  made.open(store, 'train')


@case(20, 'data.corpus-changed', 'train-00000.jsonl', 'remove the folder of the corpus')
def documents_that_changed_since_they_were_prepared(folder):
  made, store = tokens(folder)
  place = store.find(made.corpus)
  flip(place / 'documents' / 'train-00000.jsonl', at=20)
  list(made.corpus.documents(place, 'train'))


@case(25, 'mixture.negative', 'weight -1', '0 or more')
def a_mixture_with_a_negative_weight(folder):
  from train.data.mixture import Share
  from train.data.tokens import Tokens
  from train.data.vocabulary import Vocabulary
  words = corpus(folder)
  Share(Tokens(name='t', corpus=words, vocabulary=Vocabulary(name='v', corpus=words)), -1.0)


@case(25, 'mixture.all-zero', 'none has a weight above 0')
def a_mixture_of_nothing(folder):
  from train.data.mixture import Mixture
  Mixture(())


@case(27, 'generate.unknown-id', 'prompt 1 has ids from 3 to 256', '0 to 255')
def a_prompt_in_the_ids_of_a_larger_vocabulary(folder):
  import jax

  from model.decoder import build
  from model.generate import generate
  from model.sampling import GREEDY
  from model.sizes import named
  model = build(replace(named('tiny'), vocab=256))
  generate(model, {}, [[1], [3, 256]], max_new=1, sampling=GREEDY, key=jax.random.key(0))


@case(28, 'data.other-pipeline', 'tokenizer')
def a_position_in_the_ids_of_another_tokenizer(folder):
  source = batches(folder)
  position = json.loads(json.dumps(source.save()))
  for each in position['definition']['sources']:
    each['tokenizer'] = 'another'
  position['fingerprint'] = 'another'
  source.load(position)


@case(31, 'tokenizer.damaged', 'tokenizer.model')
def a_tokenizer_with_a_flipped_bit(folder):
  made, store = tokens(folder)
  flip(store.find(made.vocabulary) / 'tokenizer.model', at=99)
  made.vocabulary.load(store)
