"""vLLM's numbers of completions in OpenAI's shape, chunk by chunk."""

from typing import Any

from freehold.engines.vllm.logprobs import TextLogprobs

PROMPT = "Say:"


def _chunk(text: str, *tokens: str) -> dict[str, Any]:
    lists = {
        "tokens": list(tokens),
        "token_logprobs": [-float(len(token)) for token in tokens],
        "top_logprobs": [{token: -float(len(token)), "other": -9.0} for token in tokens],
        "text_offset": [0] * len(tokens),
    }
    return {"choices": [{"text": text, "logprobs": lists if tokens else None}]}


def _read(*chunks: dict[str, Any]) -> list[dict[str, Any] | None]:
    reader = TextLogprobs(PROMPT)
    return [reader.chunk(chunk)["choices"][0]["logprobs"] for chunk in chunks]


def test_offsets_count_from_the_beginning_of_the_prompt() -> None:
    first, second = _read(_chunk("one", "one"), _chunk(" two", " t", "wo"))
    assert first is not None
    assert second is not None
    assert (first["tokens"], first["text_offset"]) == (["one"], [4])
    assert (second["tokens"], second["text_offset"]) == ([" t", "wo"], [7, 9])
    assert second["token_logprobs"] == [-2.0, -2.0]


def test_numbers_wait_for_text_that_is_kept_back() -> None:
    held, come = _read(_chunk("", "on"), _chunk("one", "e"))
    assert held is None
    assert come is not None
    assert come["tokens"] == ["on", "e"]


def test_what_a_stop_sequence_cut_off_has_no_numbers() -> None:
    (found,) = _read(_chunk("one t", "one", " two", " three"))
    assert found is not None
    assert "".join(found["tokens"]) == "one t"
    assert found["top_logprobs"][1] == {" t": -4.0, "other": -9.0}


def test_parts_of_a_character_are_told_before_it() -> None:
    (found,) = _read(_chunk("🎉!", "", "", "🎉", "!"))
    assert found is not None
    assert found["tokens"] == ["", "", "🎉", "!"]
    assert found["text_offset"] == [4, 4, 4, 5]


def test_chunks_without_numbers_pass() -> None:
    assert _read({"choices": [{"text": "a"}]}, {"choices": [{"text": "", "logprobs": None}]}) == [
        None, None,
    ]  # fmt: skip
    assert TextLogprobs(PROMPT).chunk({"choices": [], "usage": {}}) == {"choices": [], "usage": {}}
