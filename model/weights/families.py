"""Published families of decoders and encoders: what their config.json means as a `Decoder`, what ours would be in theirs.

A family is three functions. `family_of` finds the one of a config.json by its architecture; `family_for` the one whose file
would mean a `Decoder` to the last field, and so can hold its weights.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from model.config import Decoder
from model.errors import ConfigError, DataError
from model.weights import encoders, gemmas, gpts, llamas, modernbert, names, routed
from model.weights.names import Rules
from model.weights.said import Fields, Said, Unlike


@dataclass(frozen=True)
class Family:
  """`read` raises DataError for a switch that is not known here; `write` may leave out what `read` then does not find."""

  architecture: str
  model_type: str
  read: Callable[[Said], Decoder]
  write: Callable[[Decoder], Fields]
  rules: Callable[[Decoder], Rules] = names.llama


FAMILIES = (
  Family('LlamaForCausalLM', 'llama', llamas.llama, llamas.write_llama),
  Family('MistralForCausalLM', 'mistral', llamas.mistral, llamas.write_llama),
  Family('Qwen2ForCausalLM', 'qwen2', llamas.qwen2, llamas.write_qwen2),
  Family('Qwen3ForCausalLM', 'qwen3', llamas.qwen3, llamas.write_qwen2),
  Family('GemmaForCausalLM', 'gemma', gemmas.gemma, llamas.write_llama),
  Family('Gemma2ForCausalLM', 'gemma2', gemmas.gemma2, gemmas.write_gemma2),
  Family('Gemma3ForCausalLM', 'gemma3_text', gemmas.gemma3, gemmas.write_gemma3),
  Family('MixtralForCausalLM', 'mixtral', routed.mixtral, routed.write_mixtral, names.mixtral),
  Family('Qwen3MoeForCausalLM', 'qwen3_moe', routed.qwen3_moe, routed.write_qwen3_moe),
  Family('OlmoeForCausalLM', 'olmoe', routed.olmoe, routed.write_olmoe),
  Family('Olmo2ForCausalLM', 'olmo2', llamas.olmo2, llamas.write_llama),
  Family('SmolLM3ForCausalLM', 'smollm3', llamas.smollm3, llamas.write_smollm3),
  Family('Phi3ForCausalLM', 'phi3', llamas.phi3, llamas.write_llama, names.phi3),
  Family('GPT2LMHeadModel', 'gpt2', gpts.gpt2, gpts.write_gpt2, names.gpt2),
  Family('GPTNeoXForCausalLM', 'gpt_neox', gpts.neox, gpts.write_neox, names.neox),
  Family('BertModel', 'bert', encoders.bert, encoders.write_bert, encoders.alone),
  Family('BertForMaskedLM', 'bert', encoders.masked_bert, encoders.write_bert, encoders.bert_rules),
  Family('RobertaModel', 'roberta', encoders.roberta, encoders.write_roberta, encoders.alone),
  Family('RobertaForMaskedLM', 'roberta', encoders.masked_roberta, encoders.write_roberta, encoders.roberta_rules),
  Family('ModernBertModel', 'modernbert', modernbert.modernbert, modernbert.write_modernbert, modernbert.body),
  Family('ModernBertForMaskedLM', 'modernbert', modernbert.masked_modernbert, modernbert.write_modernbert, modernbert.masked))


def family_of(said: Said) -> Family:
  """The family of a config.json. Raises: DataError that names an architecture that is none of them."""
  told = said.fields.get('architectures')
  name = told[0] if isinstance(told, list) and len(told) == 1 else None
  for family in FAMILIES:
    if family.architecture == name or (name is None and family.model_type == said.fields.get('model_type')):
      return family
  raise DataError('weights.architecture', f'{said.where}: architectures = {told!r:.80}, model_type = '
                  f'{said.fields.get("model_type")!r:.40}', f'known are {", ".join(each.architecture for each in FAMILIES)}',
                  'use a model of one of these')


def family_for(config: Decoder) -> tuple[Family, Fields]:
  """The first family that can say all that the model is, and what it says. Raises: ConfigError if there is none."""
  plain = replace(config, compute_dtype='float32', stream_dtype='float32', param_dtype='float32')
  for family in FAMILIES:
    try:
      fields = family.write(plain)
      if family.read(Said(family.architecture, fields)) == plain:
        return family, {'architectures': [family.architecture], 'model_type': family.model_type} | fields
    except (Unlike, ConfigError, DataError):
      continue
  raise ConfigError('weights.no-family', f'model = {config}', f'none of {", ".join(each.architecture for each in FAMILIES)} is '
                    'like it in every switch', 'keep it in checkpoints of our own, or train a model of such a form')
