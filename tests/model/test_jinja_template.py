"""Templates in Jinja: they write what ours write, keep the same laws, and can neither run away nor look about."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from align.sft import fit
from model.chat import ChatML, Gemma, Llama3, Message, Plain, check, check_controls, ends, prompt, render, reply
from model.errors import ConfigError, DataError, UserError
from model.jinja_process import process_of
from model.jinja_template import Jinja
from model.template_file import read_template
from tests.model.chats import FAMILY, MARKERS, TALK, controls, conversations, own, tokenizer_of, told
from train import canonical

CHATML = """\
{% for message in messages %}
{{ '<|im_start|>' + message['role'] + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{% if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
LLAMA3 = """\
{{- bos_token }}
{%- for message in messages %}
    {%- set name = 'ipython' if message.role == 'tool' else message.role %}
    {{- '<|start_header_id|>' ~ name ~ '<|end_header_id|>\\n\\n' }}
    {%- generation %}{{ message.content | trim }}{{ '<|eot_id|>' }}{% endgeneration %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}
"""
GEMMA = """\
{{ bos_token }}
{%- if messages[0].role == 'system' %}
  {%- set opening, turns = messages[0].content + '\\n\\n', messages[1:] %}
{%- else %}
  {%- set opening, turns = '', messages %}
{%- endif %}
{%- for turn in turns %}
  {%- if (turn.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('take turns, please') }}{% endif %}
  {{- '<start_of_turn>' + ('model' if turn.role == 'assistant' else turn.role) + '\\n' + (opening if loop.first else '') }}
  {{- turn.content | trim }}{{ '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}
"""
PLAIN = """\
{%- for message in messages %}
  {{- '\\n\\n' if not loop.first }}{{ message.role | capitalize }}: {{ message.content }}
  {{- eos_token if message.role == 'assistant' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '\\n\\n' if messages }}Assistant:{% endif %}
"""
ZEPHYR = """\
{% for message in messages %}
{{ '<|' + message['role'] + '|>\\n' + message['content'] + eos_token }}
{% if loop.last and add_generation_prompt %}{{ '<|assistant|>' }}
{% endif %}{% endfor %}
"""
TWINS = [(ChatML(), CHATML), (ChatML('Stay calm.'), CHATML), (Llama3(), LLAMA3), (Gemma(), GEMMA), (Plain(), PLAIN)]
EACH = pytest.mark.parametrize('ours, source', TWINS, ids=[type(ours).__name__ + ours.system[:4] for ours, _ in TWINS])
ASKED = [Message('user', 'Hi')]
ANSWERED = [*ASKED, Message('assistant', 'Hello!')]


def twin(ours, source: str) -> Jinja:
  return Jinja(ours.system, source, controls=FAMILY[type(ours)])


def refused(source: str, talk=ANSWERED, template=Jinja, tokenizer=None) -> UserError:
  with pytest.raises(UserError) as caught:
    render(template(source=source), tokenizer or own(ChatML()), talk)
  assert caught.value.why and caught.value.do
  return caught.value


class TestTwins:

  @EACH
  @settings(max_examples=30, deadline=None)
  @given(data=st.data())
  def test_they_write_what_ours_write(self, ours, source, data):
    """Id for id and mask for mask, whatever the contents say; so they keep the laws that ours keep."""
    template, tokenizer, talk = twin(ours, source), own(ours), data.draw(conversations(ours))
    talk = talk[1:] if isinstance(ours, Gemma) and talk[0].role == 'system' else talk
    for until in range(1, len(talk) + 1):
      wanted, found = render(ours, tokenizer, talk[:until]), render(template, tokenizer, talk[:until])
      assert found.ids.tolist() == wanted.ids.tolist() and found.mask.tolist() == wanted.mask.tolist()
      if not isinstance(ours, Gemma) or talk[until - 1].role == 'user':
        assert prompt(template, tokenizer, talk[:until]) == prompt(ours, tokenizer, talk[:until])

  def test_a_scene_in_the_first_turn_of_gemma(self):
    """The same text: what ours writes as one is three pieces here, and a tokenizer may join over their ends."""
    tokenizer, template = own(Gemma()), twin(Gemma(), GEMMA)
    for each in (lambda one: render(one, tokenizer, TALK).ids, lambda one: prompt(one, tokenizer, TALK[:4])):
      assert told(tokenizer, each(template)) == told(tokenizer, each(Gemma()))

  @EACH
  def test_turns_end_alike_and_answers_are_read_back(self, ours, source):
    template, tokenizer = twin(ours, source), own(ours)
    eos, _ = ends(ours, tokenizer)
    assert ends(template, tokenizer).eos == eos
    written = render(template, tokenizer, ANSWERED)
    assert reply(template, tokenizer, written.ids[written.mask > 0]) == ANSWERED[-1]
    assert reply(template, tokenizer, tokenizer.encode('cut sho')).content == 'cut sho'

  @EACH
  def test_long_conversations_are_cut_alike(self, ours, source):
    template, tokenizer = twin(ours, source), own(ours)
    talk = TALK[1:] if isinstance(ours, Gemma) else TALK
    least, most = (len(render(ours, tokenizer, each).ids) for each in ([*talk[:-4], *talk[-2:]], talk))
    for length in range(least - 2, most + 1, 5):
      wanted, found = (fit(each, tokenizer, talk, length) for each in (ours, template))
      assert found.rendered.ids.tolist() == wanted.rendered.ids.tolist() and found[1:] == wanted[1:]

  def test_tokens_that_the_tokenizer_lacks_are_text_unless_they_are_asked_for(self):
    tokenizer = tokenizer_of()
    written = render(Jinja(source=ZEPHYR), tokenizer, TALK)
    assert told(tokenizer, written.ids) == (
        '<|bos|><|system|>\nBe brief.<|eos|>\n<|user|>\nHi<|eos|>\n<|assistant|>\nHello!<|eos|>\n<|user|>\nTwo?<|eos|>\n'
        '<|assistant|>\nFine, thanks.<|eos|>')
    assert told(tokenizer, written.ids[written.mask > 0]) == 'Hello!<|eos|>Fine, thanks.<|eos|>'
    assert len(controls(tokenizer, written.ids)) == 6
    with pytest.raises(DataError, match=r'<\|user\|>') as caught:
      check_controls(Jinja(source=ZEPHYR, controls=('<|user|>',)), tokenizer)
    assert caught.value.id == 'chat.no-control'

  def test_the_words_for_contents_never_stand_for_a_user(self):
    """What a user writes is not looked through at all: not for control tokens, nor for what the renderer itself uses."""
    from model.jinja_template import BLANK, WORD
    tokenizer = own(ChatML())
    for said in (f'{BLANK}{WORD}n1e{BLANK}', *MARKERS, '{{ messages }}', "{% raise_exception('x') %}"):
      talk = [Message('user', said), ANSWERED[1]]
      assert render(twin(ChatML(), CHATML), tokenizer, talk).ids.tolist() == render(ChatML(), tokenizer, talk).ids.tolist()


HOSTILE = [
  ("{{ ''.__class__.__mro__ }}", 'forbidden'), ("{{ ''|attr('__class__') }}", 'forbidden'),
  ("{{ '{0.__class__.__init__}'.format(messages) }}", 'forbidden'), ('{{ messages.append(1) }}', 'forbidden'),
  ("{{ cycler.__init__.__globals__.os.popen('id').read() }}", 'forbidden'),
  ("{% include '/etc/passwd' %}", 'fails'), ("{% import 'os' as os %}", 'fails'), ('{{ 1 / 0 }}', 'fails'),
  ("{{ 'a' * 10 ** 10 }}", 'limit'), ('{{ range(10 ** 9) | list }}', 'limit'),
  ("{% set n = namespace(x='aaaaaaaa') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}", 'limit'),
  ('{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}', 'limit'), ('{{ 9 ** (9 ** 9) }}', 'limit'),
  ('{% for i in range(90000) %}aaaaaaaaaaaa{% endfor %}', 'limit'),
  ('{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}', 'limit'), ('{{ ' + '(' * 4000 + ')' * 4000 + ' }}', 'limit'),
  ('{{ nobody }}', 'undefined'), ('{{ nobody.name }}', 'undefined'), ('{{ messages[9].content }}', 'undefined'),
  ('{{ lipsum() }}', 'undefined'), ('{{ messages | random }}', 'syntax'), ('{{ messages | nothing }}', 'syntax'),
  ('line one\n{% for x in %}', 'syntax'), ('{% for x in messages %}', 'syntax'),
  ("{{ raise_exception('I only speak Latin') }}", 'refuses'),
]


class TestStrangers:

  @pytest.mark.parametrize('source, kind', HOSTILE, ids=[source[:40] for source, _ in HOSTILE])
  def test_each_way_to_fail_has_its_own_error_and_the_next_template_works(self, source, kind):
    error = refused(source)
    assert error.id == f'chat.template-{kind}' and isinstance(error, ConfigError if kind == 'syntax' else DataError)
    if kind == 'refuses':
      assert refused(source).args == error.args
    assert render(Jinja(source=CHATML), own(ChatML()), ANSWERED).mask.any()

  def test_an_error_names_the_line_and_the_place(self):
    assert 'line 2' in refused('line one\n{% for x in %}').what
    assert 'line 3' in refused('{{ bos_token }}\n\n{{ nobody.name }}\n').what
    assert 'Latin' in refused("{{ raise_exception('Latin only') }}").why
    with pytest.raises(DataError, match=r'talks\.jsonl:7(?s:.*)take turns') as caught:
      check(Jinja(source=GEMMA), [*ASKED, *ASKED], 'talks.jsonl:7')
    assert caught.value.id == 'chat.template-refuses'
    with pytest.raises(DataError, match='unknown-role'):
      check(Jinja(source=CHATML), [Message('root', 'x')])

  def test_the_process_sees_no_environment_and_opens_no_file(self):
    template = Jinja(source=CHATML)
    render(template, own(ChatML()), ANSWERED)
    child = process_of(template.source, template.date, os.getpid()).child
    assert child is not None and child.poll() is None
    assert Path(f'/proc/{child.pid}/environ').read_bytes().count(b'=') <= 1
    table = Path(f'/proc/{child.pid}/limits').read_text().splitlines()
    limits = {line[:25].strip(): line[25:].split()[0] for line in table[1:]}
    assert limits['Max open files'] == '3' and limits['Max file size'] == limits['Max core file size'] == '0'
    assert int(limits['Max address space']) < 1 << 30 and int(limits['Max cpu time']) < 10

  def test_a_process_that_is_gone_is_started_again(self):
    template = Jinja(source=CHATML)
    before = render(template, own(ChatML()), ANSWERED)
    child = process_of(template.source, template.date, os.getpid()).child
    child.kill()
    child.wait()
    np.testing.assert_array_equal(render(template, own(ChatML()), ANSWERED).ids, before.ids)

  def test_threads_take_turns(self):
    tokenizer, template = own(ChatML()), Jinja(source=CHATML)
    talks = [[Message('user', str(i)), Message('assistant', 'x' * i)] for i in range(40)]
    with ThreadPoolExecutor(8) as pool:
      found = list(pool.map(lambda talk: render(template, tokenizer, talk).ids.tolist(), talks))
    assert found == [render(ChatML(), tokenizer, talk).ids.tolist() for talk in talks]


def chatml(content: str) -> str:
  return CHATML.replace('message.content', content)


UNFIT = [
  ('changes-contents', chatml('message.content | upper')), ('changes-contents', chatml('message.content[:5]')),
  ('changes-contents', chatml('message.content + message.content')),
  ('changes-contents', chatml("(message.content if message.role == 'user' else '')")),
  ('prompts-otherwise', CHATML.replace('assistant', 'writer')), ('ends-nothing', CHATML.replace('<|im_end|>', '')),
  ('rewrites', chatml("(message.content + ('.' if loop.last and message.role == 'assistant' else ''))")),
]
THINKING = chatml("(message.content.split('</think>')[-1] if '</think>' in message.content else message.content)")


class TestUnfit:

  @pytest.mark.parametrize('id, source', UNFIT)
  def test_a_template_that_breaks_a_law_is_refused_by_name(self, id, source):
    assert refused(source, TALK).id == f'chat.template-{id}'

  def test_one_answer_is_rendered_where_several_are_not(self):
    source = chatml("(message.content + ('.' if loop.last and message.role == 'assistant' else ''))")
    tokenizer = own(ChatML())
    ids, mask = render(Jinja(source=source), tokenizer, ANSWERED)
    assert told(tokenizer, ids[mask > 0]) == 'Hello!.<|im_end|>'
    assert reply(Jinja(source=source), tokenizer, ids[mask > 0]) == ANSWERED[-1]

  def test_what_stands_after_the_last_turn_is_left_off(self):
    source = CHATML.rstrip() + '{% if not add_generation_prompt %}{{ eos_token }}{% endif %}'
    tokenizer = own(ChatML())
    for talk in (ANSWERED, TALK):
      assert render(Jinja(source=source), tokenizer, talk).ids.tolist() == render(ChatML(), tokenizer, talk).ids.tolist()

  @pytest.mark.parametrize('source, fits, does_not', [
    (THINKING, 'Hello!', 'Hm.</think>Hello!'), (chatml("(message.content or '-')"), 'Hello!', ''),
    (chatml("(message.content | replace('lo', 'LO'))"), 'Hi!', 'Hello!'),
    (chatml("message.content.lstrip('\\n')"), ' Hello!', '\nHello!'),
  ])
  def test_contents_that_a_template_changes_are_refused_and_others_are_not(self, source, fits, does_not):
    tokenizer = own(ChatML())
    talk = [*ASKED, Message('assistant', fits)]
    assert render(Jinja(source=source), tokenizer, talk).ids.tolist() == render(ChatML(), tokenizer, talk).ids.tolist()
    assert refused(source, [*ASKED, Message('assistant', does_not)]).id == 'chat.template-looks-into-contents'

  def test_a_setting_that_is_none_is_refused(self):
    for fields in ({}, {'source': 'x', 'date': 'today'}, {'source': 'x', 'date': '2024-02-30'}):
      with pytest.raises(ConfigError, match='Jinja'):
        Jinja(**fields)


class TestValues:

  def test_the_day_is_a_setting(self):
    source = "{{ strftime_now('%d %b %Y') }}: " + CHATML
    tokenizer = own(ChatML())
    assert told(tokenizer, render(Jinja(source=source), tokenizer, ANSWERED).ids).startswith('<|bos|>26 Jul 2024: ')
    other = Jinja(source=source, date='2031-01-02')
    assert told(tokenizer, render(other, tokenizer, ANSWERED).ids).startswith('<|bos|>02 Jan 2031: ')

  def test_json_is_not_written_for_html(self):
    source = "{{ {'b': '<é>', 'a': [1]} | tojson }}" + CHATML
    tokenizer = own(ChatML())
    assert tokenizer.decode(render(Jinja(source=source), tokenizer, ANSWERED).ids).startswith('{"b": "<é>", "a": [1]}user')

  def test_it_is_written_into_a_run_word_for_word(self):
    template = Jinja('Be kind.', LLAMA3, controls=('<|eot_id|>',))
    assert canonical.decode(json.loads(json.dumps(canonical.encode(template)))) == template
    assert canonical.encode(replace(template, date='2031-01-02')) != canonical.encode(template)

  def test_it_is_read_from_the_files_of_a_model(self, tmp_path):
    special = {'1': {'content': '<|im_start|>', 'special': True}, '2': {'content': '<|fim|>', 'special': True},
               '3': {'content': 'user', 'special': False}}
    config = tmp_path / 'tokenizer_config.json'
    config.write_text(json.dumps({'chat_template': CHATML, 'added_tokens_decoder': special}))
    assert read_template(tmp_path) == Jinja(source=CHATML, controls=('<|im_start|>',))
    several = [{'name': 'default', 'template': PLAIN}, {'name': 'rag', 'template': GEMMA}]
    config.write_text(json.dumps({'chat_template': several}))
    assert read_template(tmp_path, 'rag').source == GEMMA and read_template(tmp_path).source == PLAIN
    with pytest.raises(DataError, match='only default, rag'):
      read_template(tmp_path, 'tools')
    (tmp_path / 'chat_template.jinja').write_text(LLAMA3)
    assert read_template(tmp_path).source == LLAMA3

  @pytest.mark.parametrize('text', ['', '[]', '{}', '{"chat_template": 3}', '{"chat_template": [{"name": 3}]}',
                                    '{"chat_template": null, "added_tokens_decoder": []}'])
  def test_files_without_a_template_are_refused(self, tmp_path, text):
    (tmp_path / 'tokenizer_config.json').write_text(text)
    with pytest.raises(DataError, match=r'tokenizer_config\.json'):
      read_template(tmp_path)
    with pytest.raises(DataError, match='missing-file'):
      read_template(tmp_path / 'nowhere')
