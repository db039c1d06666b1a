"""Embeddings come in the form that was asked for, whatever the engine sends."""

import base64
import struct
from typing import Any

import pytest
from openai.types import CreateEmbeddingResponse

from freehold.core.errors import Code, UserError
from freehold.serve.protocol.meter import Meter
from freehold.serve.protocol.shape_embeddings import EmbeddingShaper

METER = Meter(tokens_in=5, is_exact=True)
FLOATS = [0.5, -1.25, 3.0]
PACKED = base64.b64encode(struct.pack("<3f", *FLOATS)).decode()


@pytest.mark.parametrize("given", [FLOATS, PACKED])
def test_either_form_becomes_the_one_asked_for(given: Any) -> None:
    content = {"data": [{"index": 0, "embedding": given, "tokens_evaluated": 3}], "model": "x"}
    plain = EmbeddingShaper("alias", False, 1).whole(content, METER)
    answer = CreateEmbeddingResponse.model_validate(plain, strict=True)
    assert answer.data[0].embedding == FLOATS
    assert (answer.model, answer.usage.prompt_tokens, answer.usage.total_tokens) == ("alias", 5, 5)
    assert set(plain["data"][0]) == {"object", "index", "embedding"}
    packed = EmbeddingShaper("alias", True, 1).whole(content, METER)
    assert packed["data"][0]["embedding"] == PACKED


def test_embeddings_keep_the_order_of_the_inputs() -> None:
    content = {"data": [{"index": index, "embedding": [float(index)]} for index in (2, 0, 1)]}
    data = EmbeddingShaper("alias", False, 3).whole(content, METER)["data"]
    assert [(entry["index"], entry["embedding"]) for entry in data] == [
        (0, [0.0]), (1, [1.0]), (2, [2.0]),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "as_base64"),
    [
        ({}, True), ({"data": None}, True), ({"data": []}, True), ({"data": ["x"]}, True),
        ({"data": [{}]}, True), ({"data": [{"embedding": ["x"]}]}, True),
        ({"data": [{"embedding": ["x"]}]}, False), ({"data": [{"embedding": [1e300]}]}, True),
        ({"data": [{"embedding": "%%"}]}, False), ({"data": [{"embedding": "AAA="}]}, False),
        ({"data": [{"embedding": FLOATS}] * 2}, False),
        ({"data": [{"index": 1, "embedding": FLOATS}]}, False),
        ({"data": [{"index": "0", "embedding": FLOATS}]}, False),
    ],
)  # fmt: skip
def test_garbage_is_the_engine_s_failure_and_not_ours(
    content: dict[str, Any], as_base64: bool
) -> None:
    shape = EmbeddingShaper("alias", as_base64, 1)
    with pytest.raises(UserError) as caught:
        shape.whole(content, METER)
    assert caught.value.code is Code.ENGINE_FAILED
