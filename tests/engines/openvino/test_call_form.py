"""How a model calls is found out from its template."""

import pytest

from freehold.engines.openvino.call_form import CallForm, form_of
from freehold.engines.openvino.template import ChatTemplate
from tests.engines.openvino import templates

_DEAF = templates.HERMES.replace("if tools", "if false")
_XML = templates.HERMES.replace('{"name": "', "<function=").replace('", "arguments": ', ">")


def _form(source: str) -> CallForm:
    found = form_of(ChatTemplate(source, eos_token="</s>"))
    assert found is not None
    return found


def test_the_form_of_hermes_and_qwen_has_tags_around_each_call() -> None:
    form = _form(templates.HERMES)
    assert (form.opener, form.lead, form.end) == ("<tool_call>", "", "\n</tool_call>")
    assert form.heads == ('\n{"name": "',)
    assert (form.neck, form.after) == ('", "arguments": ', "}")
    assert form.between == "\n</tool_call>\n<tool_call>"


def test_the_form_is_spaced_as_the_template_spaces_it() -> None:
    tight = templates.HERMES.replace("<tool_call>\\n{", "<tool_call>{").replace(
        "}\\n</tool_call>", "}</tool_call>"
    )
    form = _form(tight)
    assert (form.heads, form.end) == (('{"name": "',), "</tool_call>")


def test_the_form_of_llama_is_one_object_and_nothing_else() -> None:
    form = _form(templates.LLAMA)
    assert (form.opener, form.end, form.between) == ("", "", None)
    assert form.heads[0] + "f" + form.neck == '{"name": "f", "parameters": '
    assert form.silent == "<|python_tag|>"


def test_the_form_of_mistral_is_a_list_behind_its_token() -> None:
    form = _form(templates.MISTRAL)
    assert (form.opener, form.lead, form.between, form.end) == ("[TOOL_CALLS]", " [", ", ", "]")
    assert form.heads[0] + "f" + form.neck == '{"name": "f", "arguments": '


def test_later_ones_of_mistral_name_the_function_first() -> None:
    form = _form(templates.MISTRAL_NAMED)
    assert (form.opener, form.lead, form.end) == ("[TOOL_CALLS]", "", "")
    assert (form.heads, form.neck, form.between) == (("",), "[ARGS]", "[TOOL_CALLS]")


@pytest.mark.parametrize("source", [templates.CHATML, _DEAF, _XML, "{{ tools }}", "a"])
def test_a_template_without_tools_or_in_another_form_has_none(source: str) -> None:
    assert form_of(ChatTemplate(source)) is None
