import hashlib
import json
import time
from typing import Any

import pytest

from freehold.core.errors import Code, UserError
from freehold.engines.openvino.template import ChatTemplate, digest

_HI = [{"role": "user", "content": "hi"}]
_CALL = {
    "id": "call00001",
    "type": "function",
    "function": {"name": "look", "arguments": '{"at": "é <x>"}'},
}
_CALLED = [*_HI, {"role": "assistant", "content": None, "tool_calls": [_CALL]}]
_GROWING = (
    "{%% set n = namespace(x='aaaaaaaa') %%}{%% for i in range(60) %%}%s{%% endfor %%}{{ n.x }}"
)


def _render(source: str, messages: Any = _HI, **more: Any) -> str:
    return ChatTemplate(source, bos_token="<s>", eos_token="</s>").render(messages, **more)


def test_a_template_writes_what_transformers_would() -> None:
    source = (
        "{{ bos_token }}\n"
        "{%- for m in messages %}\n"
        "    {% if loop.index0 > 3 %}{% break %}{% endif %}\n"
        "    [{{ loop.index }}/{{ loop.length }} {{ m.role ~ ': ' ~ m['content'] | trim }}]\n"
        "{% endfor %}\n"
        "{% generation %}{% if add_generation_prompt %}go{% endif %}{% endgeneration %}\n"
        "{{ tools | tojson }} {{ {'a': '<é>'} | tojson(indent=1) }}"
    )
    messages = [{"role": "user", "content": f" {n} "} for n in range(5)]
    tools = [{"name": "<é'>", "of": [1, None, True]}]
    assert _render(source, messages, tools=tools) == (
        "<s>    [1/5 user: 0]\n    [2/5 user: 1]\n    [3/5 user: 2]\n    [4/5 user: 3]\n"
        'go[{"name": "<é\'>", "of": [1, null, true]}] {\n "a": "<é>"\n}'
    )


def test_macros_blocks_of_text_namespaces_and_methods_work() -> None:
    source = (
        "{% macro say(m, last=false) %}{{ m.role | upper }}{{ '!' if last }}{% endmacro %}"
        "{% set n = namespace(found=[]) %}"
        "{% for m in messages[::-1] %}{% set n.found = n.found + [say(m, loop.last)] %}{% endfor %}"
        "{% set text %}{{ n.found | join('-') }}{% endset %}"
        "{{ text.strip().split('-')[-1] + '%d' | string }} {{ 'x=%' ~ 2 * 3 }} {{ 7 % 4 }}"
        "{% for k, v in {'a': [1, 2]}.items() %} {{ k }}{{ v }}{% endfor %}"
    )
    assert _render(source, [*_HI, {"role": "system", "content": ""}]) == "USER!%d x=%6 3 a[1, 2]"


def test_the_prompt_may_be_left_open() -> None:
    source = "{{ messages[0].content }}{% if add_generation_prompt %}>{% endif %}"
    assert _render(source) == "hi>"
    assert _render(source, add_generation_prompt=False) == "hi"


def test_a_variable_that_templates_do_not_know_is_refused() -> None:
    assert _render("{{ enable_thinking }}", enable_thinking=False) == "False"
    with pytest.raises(UserError) as refused:
        _render("{{ messages }}", evil=1)
    assert refused.value.code is Code.UNKNOWN_PARAMETER


def test_a_template_is_pinned_by_the_digest_of_the_card() -> None:
    source = "{{ messages[0].content }}é"
    wanted = "sha256:" + hashlib.sha256(source.encode()).hexdigest()
    assert ChatTemplate(source, expected_digest=wanted).digest == digest(source) == wanted
    with pytest.raises(UserError) as refused:
        ChatTemplate(source + " ", expected_digest=wanted)
    assert refused.value.code is Code.DIGEST_MISMATCH


@pytest.mark.parametrize("source", [None, ""])
def test_a_model_without_a_template_cannot_chat(source: str | None) -> None:
    with pytest.raises(UserError) as refused:
        ChatTemplate(source)
    assert refused.value.code is Code.UNSUPPORTED_ENDPOINT


_PARTS = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
_FOR_PARTS = "{% for m in messages %}{% for p in m.content %}({{ p.text }}){% endfor %}{% endfor %}"
_FOR_TEXTS = "{% for m in messages %}({{ m.content | trim }}){% endfor %}"
_FOR_BOTH = (
    "{% for m in messages %}{% if m.content is string %}({{ m.content }})"
    "{% else %}{% for p in m.content %}[{{ p.text }}]{% endfor %}{% endif %}{% endfor %}"
)


@pytest.mark.parametrize(
    ("source", "content", "wanted"),
    [
        (_FOR_TEXTS, _PARTS, "(a\nb)"),
        (_FOR_TEXTS, "c", "(c)"),
        (_FOR_TEXTS, None, "()"),
        (_FOR_PARTS, _PARTS, "(a)(b)"),
        (_FOR_PARTS, "c", "(c)"),
        (_FOR_BOTH, _PARTS, "[a][b]"),
        (_FOR_BOTH, "c", "(c)"),
    ],
)
def test_contents_come_as_the_template_reads_them(source: str, content: Any, wanted: str) -> None:
    assert _render(source, [{"role": "user", "content": content}]) == wanted


def test_a_part_that_is_no_text_is_refused() -> None:
    with pytest.raises(UserError) as refused:
        _render(_FOR_TEXTS, [{"role": "user", "content": [{"type": "image_url"}]}])
    assert refused.value.code is Code.INVALID_VALUE


_LOOP = "{%% for m in messages %%}{%% for c in m.tool_calls or [] %%}%s{%% endfor %%}{%% endfor %%}"


@pytest.mark.parametrize(
    ("how", "wanted"),
    [
        ("{{ c.function.arguments }}", '{"at": "é <x>"}'),
        ("{{ c.function.arguments | tojson }}", '{"at": "é <x>"}'),
        ("{% for k, v in c.function.arguments | items %}<{{ k }}>{{ v }}{% endfor %}", "<at>é <x>"),
        (
            "{% set a = c.function.arguments %}"
            "{{ a if a is string else a | tojson(separators=(',', ':')) }}",
            '{"at": "é <x>"}',
        ),
    ],
)
def test_arguments_of_calls_come_as_the_template_reads_them(how: str, wanted: str) -> None:
    assert _render(_LOOP % how, _CALLED) == wanted


def test_arguments_that_are_no_json_stay_text() -> None:
    call = {**_CALL, "function": {"name": "look", "arguments": "{oops"}}
    messages = [{"role": "assistant", "content": "", "tool_calls": [call]}]
    found = _render(_LOOP % "{{ c.function.arguments | tojson }}", messages)
    assert json.loads(found) == "{oops"


_DOUBLE = "{%% set n.x = %s %%}"
_HOSTILE = {
    "long text": "{{ 'x' * 10**9 }}",
    "long text, turned": "{{ 10**9 * 'x' }}",
    "long list": "{{ [1] * 10**9 }}",
    "large power": "{{ 10**(10**8) }}",
    "large products": _GROWING.replace("'aaaaaaaa'", "9") % (_DOUBLE % "n.x * n.x"),
    "large range": "{% for a in range(10**12) %}{% endfor %}",
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}"
    "{% endfor %}{% endfor %}",
    "doubled by +": _GROWING % (_DOUBLE % "n.x + n.x"),
    "doubled by ~": _GROWING % (_DOUBLE % "n.x ~ n.x"),
    "doubled by join": _GROWING % (_DOUBLE % "[n.x, n.x] | join"),
    "doubled by .join": _GROWING % (_DOUBLE % "''.join([n.x, n.x])"),
    "doubled by a block": _GROWING % "{% set y %}{{ n.x }}{{ n.x }}{% endset %}{% set n.x = y %}",
    "doubled by a macro": "{% macro d(x) %}{{ x }}{{ x }}{% endmacro %}"
    + _GROWING % (_DOUBLE % "d(n.x)"),
    "list of lists": _GROWING % (_DOUBLE % "[n.x, n.x]"),
    "tuple of tuples": _GROWING % (_DOUBLE % "(n.x, n.x)"),
    "mapping of mappings": _GROWING % (_DOUBLE % "{'a': n.x, 'b': n.x}"),
    "dict of dicts": _GROWING % (_DOUBLE % "dict(a=n.x, b=n.x)"),
    "objects of objects": _GROWING % (_DOUBLE % "namespace(a=n.x, b=n.x)"),
    "lists added": _GROWING.replace("'aaaaaaaa'", "[1]") % (_DOUBLE % "n.x + n.x"),
    "replaced": "{% set x = 'a' * 100000 %}{{ x | replace('a', x) }}",
    "replaced by method": "{% set x = 'a' * 100000 %}{{ x.replace('a', x) }}",
    "joined": "{{ ('a' * 1000000) | join('b' * 100000) }}",
    "joined by method": "{{ ('b' * 100000).join('a' * 1000000) }}",
    "indented": "{{ ('a\n' * 100000) | indent(1000) }}",
    "indented json": "{{ [1] | tojson(indent=10**9) }}",
    "centred": "{{ 'x' | center(10**9) }}",
    "justified": "{{ 'x'.ljust(10**9) }}",
    "tabs": "{{ '\t'.expandtabs(10**9) }}",
    "format": "{{ '%1000000000d' % 1 }}",
    "format method": "{{ '{:1000000000}'.format(1) }}",
    "format filter": "{{ '%1000000000d' | format(1) }}",
    "lipsum": "{{ lipsum(n=100000) }}",
    "bytes": "{{ (1).to_bytes(10**9, 'big') }}",
    "slices": "{{ [1] | batch(10**9, 1) | list }}",
    "endless macro": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "branching macro": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}"
    "{% endmacro %}{{ f(100) }}",
    "loop in itself": "{% for x in [1] recursive %}{{ loop(range(99999)) }}{% endfor %}",
    "own text": "{% for i in range(9999) %}" + "x" * 2000 + "{% endfor %}",
    "many large texts": "{% set n = namespace(x=[]) %}{% for i in range(99999) %}"
    "{% set n.x = n.x + ['a' * 1000000 ~ i] %}{% endfor %}",
    "deep": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "many blocks": "{% for a in [1] %}" * 50 + "{% endfor %}" * 50,
    "attributes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "attributes by filter": "{{ '' | attr('__class__') }}",
    "globals": "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import 'x' as y %}",
    "from import": "{% from 'x' import y %}",
    "extends": "{% extends 'x' %}",
    "changes": "{{ messages.append(1) }}",
    "undefined": "{{ nothing.at.all }}",
    "raise": "{{ raise_exception('<b>hostile</b>') }}",
    "no jinja": "{% for %}",
    "too long": " " * (1024 * 1024 + 1),
}


@pytest.mark.parametrize("source", _HOSTILE.values(), ids=_HOSTILE)
def test_a_hostile_template_gets_nothing_and_costs_little(source: str) -> None:
    with pytest.raises(UserError) as refused:
        _render(source)
    assert refused.value.code in (Code.INVALID_VALUE, Code.FILE_INVALID)
    assert "hostile" not in refused.value.message


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception.__globals__ }}",
        "{{ raise_exception['__globals__'] }}",
        "{{ ''.__class__ }}",
        "{% for c in [''] | map(attribute='__class__') %}{{ c }}{% endfor %}",
        "{{ namespace.__init__ }}{{ cycler.mro }}",
    ],
)
def test_what_is_closed_to_a_template_looks_empty(source: str) -> None:
    assert _render(source) == ""


def test_a_long_conversation_is_no_attack() -> None:
    source = (
        "{% set n = namespace(kept=[]) %}"
        "{% for m in messages %}{% set n.kept = n.kept + [m] %}{% endfor %}"
        "{% for m in n.kept %}"
        "{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] | trim + '<|im_end|>' + '\\n' }}"
        "{% endfor %}"
    )
    messages = [{"role": "user", "content": "word " * 200}] * 1000
    assert len(_render(source, messages)) > 1_000_000


_NOON = time.struct_time((2026, 1, 2, 12, 0, 0, 4, 2, 0))


def test_the_date_is_there_and_its_format_bounded() -> None:
    assert ChatTemplate("{{ strftime_now('%Y-%m-%d') }}", now=lambda: _NOON).render(_HI) == (
        "2026-01-02"
    )
