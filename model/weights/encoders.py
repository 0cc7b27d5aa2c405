"""The encoders of BERT's form: their config.json as a `Decoder` that sees both ways, and from one; their names.

Devlin et al. 2018; MiniLM and other sentence encoders are BertModel, which has no head; RoBERTa (Liu et al. 2019) is BERT
whose positions begin after the id of padding. `Model.logits` of a model without a head means nothing.
"""

import re
from dataclasses import replace
from functools import partial

from model.config import Attention, Decoder, LayerNorm, Learned, Plain, Transformed, Typed
from model.weights.layout import Heads, Out, Turned
from model.weights.names import Rule, Rules, norm
from model.weights.said import WRITTEN, Fields, Said, Unlike, activation, only

# In files, and of no use here: what only BERT's guess whether two sentences follow each other reads, buffers, the tied head
# written a second time, and the head of masked LM where the model is said to have none.
UNUSED = re.compile(r'((bert|roberta)\.)?(pooler\.dense\.(weight|bias)|embeddings\.(position|token_type)_ids)|cls\..*|'
                    r'lm_head\.decoder\.(weight|bias)')
OLD = {'gamma': 'weight', 'beta': 'bias'}        # of norms, in the first files of BERT


def bert(said: Said) -> Decoder:
  """BERT without a head."""
  said.must('position_embedding_type', 'absolute')
  said.must('is_decoder', False)
  said.must('add_cross_attention', False)
  width, heads = said.get('hidden_size', int), said.count('num_attention_heads')
  mlp = Plain(said.get('intermediate_size', int), activation(said.or_else(hidden_act='gelu'), 'hidden_act'), bias=True)
  return Decoder(said.get('vocab_size', int), width, said.count('num_hidden_layers'),
                 Attention(heads, heads, width // heads, qkv_bias=True, out_bias=True), mlp,
                 LayerNorm(said.get('layer_norm_eps', float, 1e-12)), 'post',
                 Learned(said.count('max_position_embeddings', 512)), causal=False,
                 embedding=Typed(said.count('type_vocab_size', 2)))


def masked_bert(said: Said) -> Decoder:
  """BERT with its head, whose matrix is the embedding table."""
  said.must('tie_word_embeddings', True)
  config = bert(said)
  return replace(config, head=Transformed(only(config.mlp, Plain).activation))


def write_bert(config: Decoder) -> Fields:
  positions, mlp, types = only(config.positions, Learned), only(config.mlp, Plain), only(config.embedding, Typed)
  return {'hidden_size': config.width, 'num_hidden_layers': config.layers, 'num_attention_heads': config.attention.heads,
          'intermediate_size': mlp.hidden, 'hidden_act': WRITTEN[mlp.activation], 'layer_norm_eps': config.norm.eps,
          'vocab_size': config.vocab, 'max_position_embeddings': positions.length, 'type_vocab_size': types.types,
          'position_embedding_type': 'absolute', 'tie_word_embeddings': config.tied}


def roberta(said: Said) -> Decoder:
  """BERT whose first token stands at the place after the id of padding."""
  config = bert(said)
  first = said.get('pad_token_id', int, 1) + 1
  return replace(config, positions=replace(only(config.positions, Learned), first=first))


def masked_roberta(said: Said) -> Decoder:
  """RoBERTa with its head, whose activation is gelu whatever that of the blocks."""
  said.must('tie_word_embeddings', True)
  return replace(roberta(said), head=Transformed())


def write_roberta(config: Decoder) -> Fields:
  first = only(config.positions, Learned).first
  if first < 1:
    raise Unlike
  return write_bert(config) | {'pad_token_id': first - 1}


def body(config: Decoder, at: str) -> Rules:
  """All but the head; `at` is what their names begin with."""
  layer, embeddings = f'{at}encoder.layer.{{}}.', f'{at}embeddings.'
  attention, ours = f'{layer}attention.', 'layers/attention/'
  q, k, v = (f'{attention}self.{part}' for part in ('query', 'key', 'value'))
  heads = config.attention
  return (
    Rule('embedding/table', (f'{embeddings}word_embeddings.weight',)),
    Rule('positions/table', (f'{embeddings}position_embeddings.weight',)),
    Rule('types/table', (f'{embeddings}token_type_embeddings.weight',)),
    *norm(config, 'embedding_norm', f'{embeddings}LayerNorm'),
    Rule(f'{ours}qkv/weight', (f'{q}.weight', f'{k}.weight', f'{v}.weight'), Heads(heads)),
    Rule(f'{ours}qkv/bias', (f'{q}.bias', f'{k}.bias', f'{v}.bias'), Heads(heads)),
    Rule(f'{ours}out/weight', (f'{attention}output.dense.weight',), Out(heads)),
    Rule(f'{ours}out/bias', (f'{attention}output.dense.bias',)),
    *norm(config, 'layers/attention_norm', f'{attention}output.LayerNorm'),
    Rule('layers/mlp/up/weight', (f'{layer}intermediate.dense.weight',), Turned()),
    Rule('layers/mlp/up/bias', (f'{layer}intermediate.dense.bias',)),
    Rule('layers/mlp/down/weight', (f'{layer}output.dense.weight',), Turned()),
    Rule('layers/mlp/down/bias', (f'{layer}output.dense.bias',)),
    *norm(config, 'layers/mlp_norm', f'{layer}output.LayerNorm'))


def masked(config: Decoder, at: str, bias: str, dense: str, last: str) -> Rules:
  """The body, and a head whose parts have these names."""
  return (*body(config, at), Rule('transform/bias', (bias,)), Rule('transform/dense/weight', (f'{dense}.weight',), Turned()),
          Rule('transform/dense/bias', (f'{dense}.bias',)), *norm(config, 'transform/norm', last))


alone = partial(body, at='')
bert_rules = partial(masked, at='bert.', bias='cls.predictions.bias', dense='cls.predictions.transform.dense',
                     last='cls.predictions.transform.LayerNorm')
roberta_rules = partial(masked, at='roberta.', bias='lm_head.bias', dense='lm_head.dense', last='lm_head.layer_norm')


def aliases(name: str) -> tuple[str, ...]:
  """What files call the same tensor: with `bert.`, `roberta.` or `model.` before it or without, a norm's parts as today."""
  rest, _, last = name.rpartition('.')
  modern = f'{rest}.{OLD[last]}' if last in OLD else name
  bare = modern.removeprefix('bert.').removeprefix('roberta.').removeprefix('model.')
  return bare, f'bert.{bare}', f'roberta.{bare}', f'model.{bare}'
