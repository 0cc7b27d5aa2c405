"""What is measured on a trained model for its report. Each function returns a part: some entries of the report.

`headline` holds flat numbers, `notes` a sentence on how they were measured; both are merged into the report's own.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from model.decoder import Model, Params
from model.generate import generate
from model.sampling import Sampling
from model.tokenizer import Tokenizer
from train.data.document import Document, size
from train.eval import latency
from train.eval.baselines import Ngrams, gzip_bits_per_byte
from train.eval.failures import Output, count
from train.eval.perplexity import Score, by_source, score_documents

Part = dict[str, Any]
DOCUMENTS = 40      # of the held-out ones, so many are told apart in the report


@dataclass(frozen=True)
class Answering:
  """Which answers are judged: `answers` of them, each after a piece of held-out text."""

  answers: int = 64
  prompt_tokens: int = 16
  new_tokens: int = 128
  sampling: Sampling = Sampling(temperature=0.8, top_p=0.95)
  shown: int = 4                          # of them become samples of the report
  seed: int = 0


def merged(report: dict[str, Any], part: Part) -> dict[str, Any]:
  """The report with another part in it."""
  return report | part | {name: report[name] | part.get(name, {}) for name in ('headline', 'notes')}


def within(documents: Iterable[Document], most: int) -> Iterator[Document]:
  """Whole documents, those without text left out, until `most` bytes are reached."""
  taken = 0
  for document in documents:
    if taken >= most:
      return
    if document.text:
      yield document
      taken += size(document.text)


def baselines(train: Iterable[Document], held: Sequence[Document], orders: Sequence[int]) -> Part:
  """gzip and n-grams on the held-out documents."""
  texts = [document.text.encode() for document in held]
  ngrams = Ngrams.fit((document.text.encode() for document in train), max(orders))
  bits = ngrams.bits_per_byte(texts)
  found = {'gzip': gzip_bits_per_byte(texts)} | {f'{order}-gram': bits[order] for order in sorted(orders)}
  note = ('gzip -9: all held-out documents as one stream. n-grams of bytes, Witten-Bell smoothed: counted on '
          f'{len(ngrams.grams_T):,} bytes of the training split.')
  flat = {f'{name.replace("-", "")}_bits_per_byte': value for name, value in found.items()}
  return {'baselines': [{'name': name, 'bits_per_byte': value} for name, value in found.items()],
          'headline': flat | {'ngram_bits_per_byte': min(bits[order] for order in orders)}, 'notes': {'baselines': note}}


def heldout(model: Model, params: Params, tokenizer: Tokenizer, held: Sequence[Document], length: int, stride: int,
            batch: int) -> Part:
  """Perplexity and bits per byte of the held-out documents: whole, by source, and of the best and the worst of them."""
  scores = score_documents(model, params, tokenizer, held, length=length, stride=stride, batch=batch)
  whole = sum(scores, Score())
  sources = by_source(held, scores)
  note = (f'{len(held):,} documents, {whole.bytes:,} bytes, {whole.tokens:,} tokens. Each token is scored once, in '
          f'windows of {length} with at least {length - stride} tokens before it, where its document has them. '
          'The end of a document counts as a token and as no byte.')
  return {
    'documents': extremes([{'id': document.id, 'source': document.source} | _numbers(score)
                           for document, score in zip(held, scores)]),
    'heldout': [{'source': name, 'documents': sum(each.source == name for each in held)} | _numbers(score)
                for name, score in sources.items()],
    'headline': _flat(whole, len(held)), 'notes': {'bits_per_byte': note},
  }


def extremes(rows: list[dict[str, Any]], most: int = DOCUMENTS) -> list[dict[str, Any]]:
  """The rows from the fewest bits per byte to the most, each with its `rank` from 1; of many, as many from either end."""
  ranked = [{'rank': rank} | row for rank, row in enumerate(sorted(rows, key=_bits), 1)]
  return ranked if len(ranked) <= most else ranked[:most // 2] + ranked[-(most // 2):]


def _bits(row: dict[str, Any]) -> float:
  return np.inf if row['bits_per_byte'] is None else row['bits_per_byte']


def _flat(whole: Score, documents: int) -> dict[str, Any]:
  numbers = _numbers(whole)
  return {name: numbers[name] for name in ('perplexity', 'bits_per_byte')} | {
      'heldout_documents': documents} | {f'heldout_{name}': numbers[name] for name in ('loss', 'tokens', 'bytes')}


def _numbers(score: Score) -> dict[str, Any]:
  numbers = {'loss': score.loss, 'perplexity': score.perplexity, 'bits_per_byte': score.bits_per_byte}
  return {'bytes': score.bytes, 'tokens': score.tokens} | {
      name: value if np.isfinite(value) else None for name, value in numbers.items()}


def answers(model: Model, params: Params, tokenizer: Tokenizer, held: Sequence[Document], how: Answering,
            batch: int) -> Part:
  """How often answers go wrong, and some of them to read."""
  prompts = pieces([tokenizer.encode(document.text) for document in held], how.answers, how.prompt_tokens)
  outputs = _write(model, params, tokenizer, prompts, how, batch)
  rows = count(outputs)
  note = (f'{len(prompts)} answers of at most {how.new_tokens} tokens, each after {how.prompt_tokens} tokens of '
          f'held-out text, {drawn(how.sampling)}. Several classes may hold; "at most" ends the 95% interval.')
  samples = [{'prompt': tokenizer.decode(prompt), 'text': output.text, 'origin': f'after unseen text: {ended(output)}'}
             for prompt, output in zip(prompts[:how.shown], outputs)]
  rates = {f'{row["name"].replace(" ", "_").replace("-", "_")}_rate': row['rate'] for row in rows}
  return {'failures': rows, 'answers': samples, 'headline': rates, 'notes': {'failures': note}}


def _write(model: Model, params: Params, tokenizer: Tokenizer, prompts: list[list[int]], how: Answering,
           batch: int) -> list[Output]:
  """An answer to each prompt, `batch` of them written at a time: that changes no draw."""
  if not prompts:
    return []
  made = generate(model, params, [[tokenizer.bos, *ids] for ids in prompts], max_new=how.new_tokens, sampling=how.sampling,
                  eos=tokenizer.eos, limit=tokenizer.size, key=jax.random.key(how.seed), at_once=batch)
  return [Output(ids.tolist(), tokenizer.decode(ids.tolist()), logps.tolist(), reason) for ids, logps, reason in zip(*made)]


def pieces(texts: Sequence[Sequence[int]], number: int, length: int) -> list[list[int]]:
  """`number` pieces of `length` ids, evenly spread over all texts, each within one; fewer where there are no more."""
  places = [(i, start) for i, ids in enumerate(texts) for start in range(0, len(ids) - length + 1, length)]
  number = min(number, len(places))
  chosen = [places[i * len(places) // number] for i in range(number)]
  return [list(texts[i][start:start + length]) for i, start in chosen]


def drawn(sampling: Sampling) -> str:
  """The settings in words: `temperature 0.8, top-p 0.95`."""
  words = [f'temperature {sampling.temperature:g}']
  words += [f'top-k {sampling.top_k}'] * (sampling.top_k > 0) + [f'top-p {sampling.top_p:g}'] * (sampling.top_p < 1)
  words += [f'min-p {sampling.min_p:g}'] * (sampling.min_p > 0)
  words += [f'repetition penalty {sampling.repetition_penalty:g}'] * (sampling.repetition_penalty != 1)
  return ', '.join(words)


def ended(output: Output) -> str:
  """How an answer ended, in words."""
  why = {'eos': 'ended by itself', 'stop': 'ended by a stop sequence', 'length': 'cut off at the limit'}[output.reason]
  return f'{len(output.ids)} tokens, {why}'


def waits(model: Model, params: Params, tokenizer: Tokenizer, held: Sequence[Document], timing: latency.Timing,
          sampling: Sampling) -> Part:
  """Response times. In the headline: one answer at a time, and the speed of the largest number at a time."""
  text = [token for document in held for token in tokenizer.encode(document.text)]
  rows = latency.measure(model, params, text, timing=timing, sampling=sampling)
  single = next((row for row in rows if row['concurrency'] == 1), {})
  many = max(rows, key=lambda row: row['concurrency'])
  return {
    'latency': rows, 'notes': {'latency': latency.NOTE},
    'headline': {'first_token_p50': single.get('first_token_p50'), 'next_token_p50': single.get('next_token_p50'),
                 'decode_tokens_per_s': many['tokens_per_s'], 'decode_concurrency': many['concurrency']},
  }
