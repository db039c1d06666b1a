"""The door before vLLM's server, over a stand-in for that server which answers with what it
was asked. `tests/contract/test_vllm.py` goes through it to the real one."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from freehold.engines.vllm.door import Door
from freehold.engines.vllm.shelf import Shelf
from tests.engines.vllm.making import Holder, told

BASE = "sha256:" + "b" * 64
TEXT = "/v1/completions"


class Server:
    """Remembers scopes and bodies; `status` and `said` are its answer."""

    def __init__(self) -> None:
        self.scopes: list[dict[str, Any]] = []
        self.bodies: list[dict[str, Any]] = []
        self.said: list[tuple[int, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = json.loads((await receive())["body"])
        self.scopes.append(scope)
        self.bodies.append(body)
        status, content = self.said.pop(0) if self.said else (200, {"model": body["model"]})
        kind = b"text/event-stream; charset=utf-8" if body.get("stream") else b"application/json"
        headers = [(b"content-type", kind), (b"x-request-id", b"1")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        if not body.get("stream"):
            data = json.dumps(content).encode()
        else:
            data = b"data: " + json.dumps(content).encode() + b"\n\n: idle\n\ndata: [DONE]\n\n"
        for place in range(0, len(data), 7):
            part = data[place : place + 7]
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(Holder(), tmp_path / "private", 4)


@pytest_asyncio.fixture
async def client(server: Server, shelf: Shelf) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(Door(server, BASE, shelf))
    async with httpx2.AsyncClient(transport=transport, base_url="http://engine") as one:
        yield one


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/invocations"), ("POST", "/v1/load_lora_adapter"), ("GET", "/metrics"),
        ("POST", "/v1/completions/"), ("GET", TEXT), ("HEAD", "/v1/models"), ("POST", "/pause"),
        ("OPTIONS", TEXT), ("POST", "/V1/completions"), ("POST", "/v1//completions"),
    ],
)  # fmt: skip
async def test_what_the_gateway_does_not_ask_for_is_not_there(
    client: httpx2.AsyncClient, server: Server, method: str, path: str
) -> None:
    assert (await client.request(method, path, json={})).status_code == 404
    assert not server.scopes


async def test_nothing_of_a_caller_s_passes_but_its_body(
    client: httpx2.AsyncClient, server: Server
) -> None:
    body = {"prompt": "Hello", "model": "other", "tenant": "ten", "cache_salt": "a@/b"}
    headers = {"x-request-id": "mine", "authorization": "Bearer x", "content-type": "text/plain"}
    answer = await client.post(f"{TEXT}?model=x", content=json.dumps(body), headers=headers)
    assert answer.json() == {"model": BASE, "adapter": None}
    (scope,), (sent,) = server.scopes, server.bodies
    assert {name for name, _ in scope["headers"]} == {b"content-type", b"content-length"}
    assert (scope["path"], scope["query_string"]) == (TEXT, b"")
    assert set(sent) == {"prompt", "model", "cache_salt"}
    assert sent["model"] == BASE


async def test_salts_stay_apart_and_none_is_shared_with_nobody(
    client: httpx2.AsyncClient, server: Server
) -> None:
    for salt in ("one", "two", "one", "", None):
        await client.post(TEXT, json={"prompt": "a", "cache_salt": salt})
    await client.post(TEXT, json={"prompt": "a"})
    one, two, again, *without = [body["cache_salt"] for body in server.bodies]
    assert one == again
    assert len({one, two, *without}) == 5
    assert all(each.isalnum() and len(each) <= 128 for each in (one, two, *without))


async def test_an_answer_says_its_base_and_what_vllm_calls_its_adapter(
    client: httpx2.AsyncClient, server: Server, tmp_path: Path
) -> None:
    adapter = told(tmp_path / "one")
    added = await client.post("/v1/adapters", json={"add": [adapter], "drop": []})
    assert added.json() == {"refused": {}}
    asked = {"prompt": "a", "adapter": adapter["digest"]}
    answer = await client.post(TEXT, json=asked)
    assert server.bodies[-1]["model"] == adapter["digest"]
    assert answer.json() == {"model": BASE, "adapter": adapter["digest"]}
    server.said.append((200, {"model": "sha256:other", "choices": []}))
    answer = await client.post(TEXT, json={**asked, "stream": True})
    first, *rest = answer.text.split("\n\n")
    assert json.loads(first.removeprefix("data: ")) == {
        "model": BASE, "choices": [], "adapter": "sha256:other",
    }  # fmt: skip
    assert rest == [": idle", "data: [DONE]", ""]


async def test_an_adapter_that_is_not_there_is_no_other_one(
    client: httpx2.AsyncClient, server: Server
) -> None:
    for name in ("sha256:" + "0" * 64, BASE, "", 0, ["a"]):
        answer = await client.post(TEXT, json={"prompt": "a", "adapter": name})
        assert answer.status_code == 404
        assert answer.json() == {"error": {"code": "unknown_adapter"}}
    assert not server.scopes


async def test_a_refusal_names_the_parameter_and_quotes_nothing(
    client: httpx2.AsyncClient, server: Server
) -> None:
    error = {"message": "secret", "type": "BadRequestError", "code": 400, "param": "logprobs"}
    server.said.append((400, {"error": error}))
    server.said.append((400, {"error": error}))
    for path in (TEXT, "/tokenize"):
        answer = await client.post(path, json={"prompt": "a"})
        assert answer.status_code == 400
        assert answer.json() == {"error": {"code": "refused", "param": "logprobs"}}


async def test_a_refusal_within_a_stream_that_has_not_begun_is_one_of_the_whole(
    client: httpx2.AsyncClient, server: Server
) -> None:
    for code, status in ((400, 400), (500, 500), (None, 500)):
        server.said.append((200, {"error": {"message": "secret", "code": code}}))
        answer = await client.post(TEXT, json={"prompt": "a", "stream": True})
        assert answer.status_code == status
        assert answer.json() == {"error": {"code": "refused", "param": None}}


async def test_a_limit_beyond_the_context_is_the_context_s_end(
    client: httpx2.AsyncClient, server: Server
) -> None:
    too_long = (400, {"error": {"message": "m", "param": "input_tokens"}})
    server.said.append(too_long)
    answer = await client.post(TEXT, json={"prompt": "a", "max_tokens": 5})
    assert answer.status_code == 200
    assert ["max_tokens" in body for body in server.bodies] == [True, False]
    for body in ({"prompt": "a"}, {"prompt": "a", "max_tokens": 5}):
        server.said += [too_long, too_long]
        answer = await client.post(TEXT, json=body)
        assert answer.json() == {"error": {"code": "context_length_exceeded"}}
        server.said.clear()


async def test_usage_is_openai_s_part_of_it(client: httpx2.AsyncClient, server: Server) -> None:
    usage = {"prompt_tokens": 3, "total_tokens": 5, "completion_tokens": 2}
    for details, cached in (({"cached_tokens": 2, "multimodal_tokens": None}, 2), (None, 0)):
        said = {**usage, "prompt_tokens_details": details, "completion_tokens_details": None}
        server.said.append((200, {"model": BASE, "usage": said}))
        answer = (await client.post(TEXT, json={"prompt": "a"})).json()
        assert answer["usage"] == {**usage, "prompt_tokens_details": {"cached_tokens": cached}}


async def test_it_is_the_base_by_its_digest(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/v1/models")).json()["data"] == [{"id": BASE}]
