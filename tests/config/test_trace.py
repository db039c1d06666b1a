"""Recorded requests, read as they are published and as people write them."""

import json
from pathlib import Path

import pytest

from freehold.config.trace import read_trace
from freehold.core.errors import UserError


def kept(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "trace"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def line(**fields: object) -> str:
    return json.dumps({"timestamp": 10, "prompt_tokens": 5, "answer_tokens": 2} | fields) + "\n"


def test_json_lines_are_sorted_and_counted_from_the_first(tmp_path: Path) -> None:
    text = line(timestamp=130) + "\n" + line() + line(timestamp="1970-01-01T00:00:40Z")
    found = read_trace(kept(tmp_path, text))
    assert found.at_s.tolist() == [0, 30, 120]
    assert (found.starts_at_s, found.span_s) == (10, 180)
    assert found.prompt.tolist() == [5, 5, 5]
    assert found.adapter.tolist() == [-1, -1, -1]


def test_adapters_of_one_name_are_two_for_two_tenants(tmp_path: Path) -> None:
    who = [("a", "x"), ("b", "x"), ("a", "x"), ("a", None)]
    text = "".join(
        line(timestamp=at, tenant=tenant, adapter=adapter)
        for at, (tenant, adapter) in enumerate(who)
    )
    found = read_trace(kept(tmp_path, text)).adapter.tolist()
    assert found == [0, 1, 0, -1]


def test_azures_traces_are_read_in_both_of_their_forms(tmp_path: Path) -> None:
    text = (
        "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
        "2023-11-16 18:17:03.9799600,4808,10\r\n"
        "2023-11-16 18:17:04.0319600,3180,8\r\n"
        "2023-11-16 18:17:05.009930+00:00,110,0\r\n"
    )
    found = read_trace(kept(tmp_path, text))
    assert found.at_s.tolist() == pytest.approx([0, 0.052, 1.02997], abs=1e-5)
    assert found.prompt.tolist() == [4808, 3180, 110]
    assert found.answer.tolist() == [10, 8, 1]
    assert found.starts_at_s == pytest.approx(1_700_158_623.97996)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (line() + "nonsense\n", "line 2: this is neither a JSON object nor a line of Azure's"),
        (line() + "[1]\n", "line 2: each line must be a JSON object"),
        (line(tokens=3), "line 1: 'tokens' is no field; there are adapter, answer_tokens"),
        (line(timestamp="noon"), "line 1: the timestamp must be 2026-03-01T12:00:00Z, say"),
        (line(timestamp=True), "line 1: the timestamp must be"),
        (line(prompt_tokens=-1), "line 1: prompt_tokens must be a whole number of tokens"),
        (line(answer_tokens=2.5), "line 1: answer_tokens must be a whole number of tokens"),
        (line(answer_tokens=None), "line 1: answer_tokens must be a whole number of tokens"),
        (line(), "has no two requests at different times"),
        ("", "has no two requests at different times"),
        (line() + line(), "has no two requests at different times"),
        (b"\xff\xfe", "is not text in UTF-8"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16,1\n", "line 2: there must be 3"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\nx,1,2\n", "line 2: the timestamp must be"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n5,1,2\n", "line 2: the timestamp must be"),
    ],
)
def test_what_is_no_trace_is_named_with_its_line(
    tmp_path: Path, text: str | bytes, told: str
) -> None:
    with pytest.raises(UserError) as caught:
        read_trace(kept(tmp_path, text))
    assert told in caught.value.message
    assert "\n" not in caught.value.message


def test_a_trace_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone cannot be read \(No such file"):
        read_trace(tmp_path / "gone")
