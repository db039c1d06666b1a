"""A sentence encoder beside a chat model: pulled by name, served, asked with the real SDK."""

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

from tests.installation import Installation, environment_of, freehold, share, start

CHAT_MODEL, MODEL = "smollm2-135m-instruct", "all-minilm-l6-v2"
CONTEXT, WIDTH = 512, 384
# What the model's own library makes of these texts; the file says which release of it.
REFERENCE = json.loads(Path(__file__).with_name("all_minilm_reference.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, stored: Path) -> Iterator[Installation]:
    """Both models on a home of their own."""
    home = tmp_path_factory.mktemp("both")
    share(stored, home)
    pulled = freehold(environment_of(home), "model", "pull", MODEL, "--json")
    assert pulled.returncode == 0, pulled.stderr
    card = json.loads(pulled.stdout)
    assert (card["task"], card["architecture"], card["licence"]["spdx"]) == (
        "embeddings", "bert", "Apache-2.0",
    )  # fmt: skip
    assert (card["context_length"], card["embedding_length"]) == (CONTEXT, WIDTH)
    running = start(home, "--model", CHAT_MODEL, "--model", MODEL)
    yield running
    running.stop()


@pytest.fixture
def client(served: Installation) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{served.url}/v1", api_key=served.key, max_retries=0, timeout=60
    ) as made:
        yield made


def _vectors(answer: openai.types.CreateEmbeddingResponse) -> np.ndarray[Any, Any]:
    assert [entry.index for entry in answer.data] == list(range(len(answer.data)))
    vectors = np.array([entry.embedding for entry in answer.data])
    assert vectors.shape[1] == WIDTH
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)
    return vectors


def test_texts_embed_as_the_model_s_own_library_embeds_them(client: openai.OpenAI) -> None:
    texts = [entry["text"] for entry in REFERENCE["texts"]]
    packed = client.embeddings.create(model=MODEL, input=texts)
    plain = client.embeddings.create(model=MODEL, input=texts, encoding_format="float")
    assert np.allclose(_vectors(packed), _vectors(plain), atol=1e-3)
    for entry, vector in zip(REFERENCE["texts"], _vectors(packed), strict=True):
        expected = np.frombuffer(base64.b64decode(entry["vector"]), "<f2").astype(float)
        likeness = float(vector @ expected / np.linalg.norm(expected))
        assert likeness > 0.999, entry["text"]
        alone = client.embeddings.create(model=MODEL, input=entry["text"])
        assert float(_vectors(alone)[0] @ vector) > 0.999
        assert alone.usage.prompt_tokens == alone.usage.total_tokens == entry["tokens"]
    assert packed.usage.prompt_tokens == sum(entry["tokens"] for entry in REFERENCE["texts"])


def test_what_means_the_same_lies_closest(client: openai.OpenAI) -> None:
    texts = [
        "How do I reset my password?",
        "I forgot my login and need a new one.",
        "The recipe needs two eggs and some flour.",
        "A man is playing the guitar.",
    ]
    vectors = _vectors(client.embeddings.create(model=MODEL, input=texts))
    likeness = vectors @ vectors[0]
    assert likeness[1] > 0.4
    assert max(likeness[2:]) < 0.2


def test_sixty_four_inputs_come_back_in_their_order(client: openai.OpenAI) -> None:
    texts = [f"Item {number} of the list is {number * number}." for number in range(64)]
    many = _vectors(client.embeddings.create(model=MODEL, input=texts))
    for number in (0, 31, 63):
        alone = _vectors(client.embeddings.create(model=MODEL, input=texts[number]))[0]
        assert int(np.argmax(many @ alone)) == number
        assert float(many[number] @ alone) > 0.999


def test_an_input_is_taken_up_to_the_context_and_never_cut(client: openai.OpenAI) -> None:
    fits = "word " * (CONTEXT - 2)  # and the two marks that each input gets
    assert client.embeddings.create(model=MODEL, input=fits).usage.prompt_tokens == CONTEXT
    cases = {"input[2]": ["short", fits, fits + "word"], "input": fits + "word"}
    for place, given in cases.items():
        with pytest.raises(openai.BadRequestError) as refused:
            client.embeddings.create(model=MODEL, input=given)
        assert (refused.value.code, refused.value.param) == ("context_length_exceeded", place)
        assert f"{place} has 513 tokens and this model takes 512" in refused.value.message
    assert client.embeddings.create(model=MODEL, input="still there").usage.prompt_tokens == 4


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"input": ""}, "invalid_value", "input"),
        ({"input": ["a", ""]}, "invalid_value", "input[1]"),
        ({"input": []}, "invalid_value", "input"),
        ({"input": ["a"] * 2049}, "invalid_value", "input"),
        ({"input": [101, 7592, 102]}, "unsupported_parameter", "input[0]"),
        ({"dimensions": 64}, "unsupported_parameter", "dimensions"),
        ({"encoding_format": "int8"}, "invalid_value", "encoding_format"),
        ({"model": CHAT_MODEL}, "unsupported_endpoint", "model"),
    ],
)
def test_what_cannot_be_embedded_is_refused_by_its_place(
    client: openai.OpenAI, fields: dict[str, Any], code: str, param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.embeddings.create(**{"model": MODEL, "input": "a text", **fields})
    assert (refused.value.code, refused.value.param) == (code, param)


def test_an_encoder_does_not_chat_and_says_what_it_does(
    client: openai.OpenAI, served: Installation
) -> None:
    messages: list[Any] = [{"role": "user", "content": "Hello!"}]
    with pytest.raises(openai.BadRequestError) as chat:
        client.chat.completions.create(model=MODEL, messages=messages)
    with pytest.raises(openai.BadRequestError) as completion:
        client.completions.create(model=MODEL, prompt="Hello!")
    with pytest.raises(openai.BadRequestError) as response:
        client.responses.create(model=MODEL, input="Hello!")
    for refused in (chat.value, completion.value, response.value):
        assert refused.code == "unsupported_endpoint"
        assert "it serves /v1/embeddings." in refused.message
    said = served.run("chat", "Hello!", "--model", MODEL)
    assert said.returncode == 1
    assert "it serves /v1/embeddings." in said.stderr
    assert client.chat.completions.create(model=CHAT_MODEL, messages=messages, max_tokens=2)


def test_an_answer_names_its_weights_and_its_use_is_recorded(
    client: openai.OpenAI, served: Installation
) -> None:
    key = json.loads(served.run("key", "create", "embedder", "--model", MODEL, "--json").stdout)
    mine = client.with_options(api_key=key["key"])
    raw = mine.embeddings.with_raw_response.create(model=MODEL, input=["one", "two words"])
    card = json.loads(served.run("model", "show", MODEL, "--json").stdout)
    assert raw.headers["x-freehold-model-digest"] == card["digest"]
    assert raw.parse().usage.prompt_tokens == 7
    with pytest.raises(openai.BadRequestError):
        mine.embeddings.create(model=MODEL, input="")
    with pytest.raises(openai.NotFoundError):
        mine.chat.completions.create(model=CHAT_MODEL, messages=[{"role": "user", "content": "Hi"}])
    (row,) = json.loads(served.run("usage", "--key", key["id"], "--json").stdout)
    assert (row["alias"], row["requests"], row["failed"]) == (MODEL, 1, 0)
    assert (row["tokens_in"], row["tokens_out"]) == (7, 0)


def test_a_gateway_of_an_encoder_alone_shows_how_to_try_it(
    served: Installation, tmp_path: Path
) -> None:
    share(served.home, tmp_path)
    running = start(tmp_path, "--model", MODEL)
    line = next(line for line in running.printed.splitlines() if "curl " in line)
    ended = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, timeout=300, check=True
    )
    assert len(json.loads(ended.stdout)["data"][0]["embedding"]) == WIDTH
    assert "freehold chat" not in running.printed
    running.stop()
