"""The greedy answers of a published chat model, by our code and by transformers: 20 questions, 32 tokens each.

  .venv/bin/python -m tests.peers.greedy ours RUN_FOLDER ours.json         what experiments/smollm2/chat.py made
  PEER/bin/python -m tests.peers.greedy theirs FILE.gguf theirs.json       transformers, torch and the gguf package
  .venv/bin/python -m tests.peers.greedy compare ours.json theirs.json
"""

import json
import sys
from pathlib import Path

TOKENS = 32
QUESTIONS = (
  'What is the capital of France?', 'Who wrote Hamlet?', 'Name three primary colours.', 'What is 2 + 2?',
  'Say hello in Spanish.', 'What do bees make?', 'How many days are in a week?', 'What is the largest planet?',
  'Write a haiku about rain.',
  'Why is the sky blue?', 'What is photosynthesis?', 'List two uses of iron.', 'What is a prime number?',
  'Translate "cat" into French.',
  'Who painted the Mona Lisa?', 'Give me a tip for sleeping well.', 'What is the boiling point of water?', 'What is gravity?',
  'Tell me a joke.', 'Write one line of Python that prints 5.')


def ours(folder: str) -> list[list[int]]:
  """The ids that our code answers with."""
  import jax

  from experiments.load import load_model
  from model.chat import Message, ends, prompt
  from model.generate import generate
  from model.sampling import Sampling
  from train.artifact import Store
  from train.trained import load
  run, place = load_model(folder)
  found = load(run, Store(place.parent))
  prompts = [prompt(run.template, found.tokenizer, [Message('user', question)]) for question in QUESTIONS]
  ending = ends(run.template, found.tokenizer)
  return [ids.tolist() for ids in generate(found.model, found.params, prompts, max_new=TOKENS, sampling=Sampling(0.0),
                                           key=jax.random.key(0), eos=ending.eos, stop=ending.stop).tokens]


def theirs(file: str) -> list[list[int]]:
  """Those of transformers, whose own template asks."""
  import torch
  from transformers import AutoModelForCausalLM, AutoTokenizer
  path = Path(file)
  where = {'pretrained_model_name_or_path': str(path.parent), 'gguf_file': path.name} if path.is_file() else {
    'pretrained_model_name_or_path': str(path)}
  tokenizer = AutoTokenizer.from_pretrained(**where)
  model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32).eval()
  end = tokenizer.convert_tokens_to_ids('<|im_end|>')
  answers = []
  for question in QUESTIONS:
    text = tokenizer.apply_chat_template([{'role': 'user', 'content': question}], add_generation_prompt=True, tokenize=False)
    ids = torch.tensor([tokenizer(text, add_special_tokens=False).input_ids])
    with torch.no_grad():
      written = model.generate(ids, max_new_tokens=TOKENS, do_sample=False, eos_token_id=end, pad_token_id=end,
                               repetition_penalty=1.0)
    answers.append(written[0, ids.shape[1]:].tolist())
  return answers


def main(what: str, first: str, second: str) -> None:
  if what != 'compare':
    Path(second).write_text(json.dumps({'ours': ours, 'theirs': theirs}[what](first)))
    return
  found = [json.loads(Path(path).read_text()) for path in (first, second)]
  for question, one, other in zip(QUESTIONS, *found):
    print('same' if one == other else f'DIFFERENT: {one} {other}', question)
  print(f'{sum(one == other for one, other in zip(*found))} of {len(QUESTIONS)} answers are the same')


if __name__ == '__main__':
  main(*sys.argv[1:])
