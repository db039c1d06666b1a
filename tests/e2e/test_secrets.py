"""Secrets in every place where a client, an operator or an upstream can put one: none is
in a log, the database, the journal, a metric or another answer afterwards."""

import base64
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil

from tests import upstream as far
from tests.installation import Installation, share
from tests.upstream import Asked, Upstream

_MODEL = "smollm2-135m-instruct"
# Where secrets are meant to be: the admin's key, the pepper, the file of the upstream's
# key; and model files, which are large and hold no requests.
_MEANT = ("admin.key", "secrets/", "upstream.key", "blobs/", "freehold.yaml")


# How each word of ours ends; and what of that is the same in base64, wherever it begins.
_END = "zzcanary"
_STEMS = (b"zzcanary", b"zzcanary".hex().encode(), b"Y2Fu", b"emNhbmFy", b"enpjYW5h")


class _Canaries:
    """Words that nothing else holds, by the place that each was put in."""

    def __init__(self) -> None:
        self.places: dict[str, str] = {}

    def __call__(self, place: str) -> str:
        start = "".join(character for character in place[:6] if character.isalpha())
        return self.places.setdefault(place, f"cnry{len(self.places):04d}q{start}{_END}")

    def found_in(self, content: bytes) -> list[str]:
        own, others = [], []
        for place, word in self.places.items():
            (own if word.endswith(_END) else others).append(place)
        looked_for = others
        if any(stem in content for stem in _STEMS):  # files of models are large
            looked_for = [*own, *others]
        return [place for place in looked_for if any(form in content for form in self.forms(place))]

    def forms(self, place: str) -> Iterator[bytes]:
        """As it is, in hexadecimal, and in base64 wherever it begins."""
        word = self(place).encode()
        yield word
        yield word.hex().encode()
        for shift in range(3):
            yield base64.b64encode(b" " * shift + word)[4:-4]


def _chat(content: Any, **fields: Any) -> dict[str, Any]:
    return {
        "model": _MODEL,
        "max_tokens": 4,
        "messages": [{"role": "user", "content": content}],
        **fields,
    }


def _bodies(canary: _Canaries) -> Iterator[tuple[str, Any]]:
    """Path and body: some are answered, most are refused, each in its own place."""
    chat = "/v1/chat/completions"
    yield chat, _chat(canary("prompt"))
    yield chat, _chat(canary("streamed prompt"), stream=True)
    yield chat, _chat([{"type": "text", "text": canary("part")}])
    yield chat, _chat([{"type": "image_url", "image_url": {"url": f"https://{canary('image')}/"}}])
    yield chat, _chat("x " * 5000 + canary("too long a prompt"))
    yield chat, _chat("hi", user=canary("user"), metadata={canary("metadata"): canary("value")})
    yield chat, _chat("hi", stop=[canary("stop")])
    yield chat, _chat("hi", **{canary("field"): canary("value of a field")})
    yield chat, _chat("hi", temperature=canary("wrong type"))
    yield chat, _chat("hi", model=canary("model"))
    yield chat, _chat("hi", messages=[{"role": canary("role"), "content": "hi"}])
    yield chat, _chat("hi", messages=[{"role": "system", "content": canary("system")}])
    schema = {"type": "object", "properties": {canary("property"): {"type": "string"}}}
    for name, bad in (
        (canary("schema"), schema),
        (canary("pattern"), {"type": "string", "pattern": f"^({canary('open pattern')}$"}),
        (canary("reference"), {"$ref": f"#/definitions/{canary('missing definition')}"}),
        (canary("kind"), {"type": canary("unknown kind")}),
        (canary("enum"), {"enum": [canary("enum value"), {}]}),
    ):
        wanted = {"type": "json_schema", "json_schema": {"name": name, "schema": bad}}
        yield chat, _chat(canary("prompt with a schema"), response_format=wanted)
    function = {"name": canary("tool"), "description": canary("description"), "parameters": schema}
    tools = [{"type": "function", "function": function}]
    yield chat, _chat("hi", tools=tools, tool_choice="required")
    yield (
        chat,
        _chat(
            "hi",
            tools=tools,
            tool_choice={"type": "function", "function": {"name": canary("choice")}},
        ),
    )
    yield "/v1/completions", {"model": _MODEL, "prompt": canary("completion"), "max_tokens": 2}
    yield "/v1/completions", {"model": _MODEL, "prompt": "hi", "suffix": canary("suffix")}
    yield "/v1/embeddings", {"model": _MODEL, "input": canary("input")}
    few = {"max_output_tokens": 16}
    yield "/v1/responses", {"model": _MODEL, "input": canary("input of a response"), **few}
    yield (
        "/v1/responses",
        {"model": _MODEL, "input": "hi", "previous_response_id": canary("previous"), **few},
    )
    yield "/admin/v1/keys", {"name": canary("key name")[:3], "scopes": [canary("scope")]}
    yield "/admin/v1/keys", {"name": "taken over", "sha256": canary("hash")}
    yield "/v1/chat/completions", _chat(canary("prompt for far"), model="far")
    yield "/v1/chat/completions", _chat(canary("streamed for far"), model="far", stream=True)
    yield "/v1/chat/completions", f'{{"model": "{canary("broken JSON")}", '.encode()
    yield "/v1/chat/completions", b"\xff" + canary("broken text").encode()
    yield "/v1/chat/completions", b'["' + canary("no object").encode() + b'"]'


_HEADERS = (
    "cookie", "user-agent", "x-request-id", "x-forwarded-for", "x-freehold-priority", "referer",
    "openai-organization", "x-user", "traceparent", "idempotency-key", "content-type", "accept",
)  # fmt: skip


async def _put_outside_of_bodies(client: httpx2.AsyncClient, canary: _Canaries) -> None:
    for name in _HEADERS:
        headers = {name: canary(name)}
        await client.post("/v1/chat/completions", json=_chat("hi"), headers=headers)
    for headers in (
        {"authorization": f"Bearer fh_dev_01M_{canary('wrong key')}"},
        {"authorization": f"Bearer {canary('odd key')} {canary('more of it')}"},
        {"authorization": f"Basic {canary('basic')}"},
        {"authorization": "", "x-api-key": canary("x-api-key")},
        {"authorization": "", "api-key": canary("api-key")},
        {"host": canary("host")},
        {"content-length": canary("length")},
    ):
        with contextlib.suppress(httpx2.HTTPError):
            await client.get("/v1/models", headers=headers)
    for path in (
        f"/v1/models/{canary('path of a model')}",
        f"/{canary('path')}?key={canary('query')}",
        f"/admin/v1/keys/{canary('key id')}",
        f"/admin/v1/usage?since={canary('since')}&key={canary('key of usage')}",
        f"/admin/v1/requests?before={canary('before')}",
        f"/metrics?name={canary('query of metrics')}",
    ):
        await client.get(path)
        await client.delete(path)


async def _put_into_bodies(client: httpx2.AsyncClient, canary: _Canaries) -> Counter[int]:
    """How often each status was the answer."""
    statuses: Counter[int] = Counter()
    for number, (path, body) in enumerate(_bodies(canary)):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"idempotency-key": f"{canary('idempotency')}-{number}"}
        answer = await client.post(path, content=content, headers=headers)
        statuses[answer.status_code] += 1
    return statuses


@contextlib.asynccontextmanager
async def _failing_upstream(canary: _Canaries) -> AsyncIterator[Upstream]:
    """Says secrets of its own, in refusals and in the middle of answers."""

    async def answer(asked: Asked) -> None:
        secret = canary("what the upstream says")
        if asked.body.get("stream"):
            await asked.say(far.STREAM + far.token("one"))
            await asked.say(far.piece(f'data: {{"error": "{secret}"}}\n\n'.encode()))
        else:
            await asked.say(far.status(400, {"error": {"message": secret, "param": "x"}}))

    async with far.upstream(answer) as upstream:
        yield upstream


async def test_no_secret_is_anywhere_it_should_not_be(
    tmp_path: Path, stored: Path, begin: Callable[..., Installation]
) -> None:
    share(stored, tmp_path)
    canary = _Canaries()
    async with _failing_upstream(canary) as upstream:
        told = far.settings(upstream, tmp_path).model_dump(mode="json")
        (tmp_path / "freehold.yaml").write_text(
            json.dumps({"upstreams": [told], "log_level": "debug"})
        )
        gateway = begin(tmp_path)
        canary.places["the upstream's key"] = far.KEY
        canary.places["the admin's key"] = gateway.key
        headers = {"authorization": f"Bearer {gateway.key}"}
        async with httpx2.AsyncClient(base_url=gateway.url, headers=headers, timeout=60) as client:
            await _put_outside_of_bodies(client, canary)
            statuses = await _put_into_bodies(client, canary)
            assert statuses[200] >= 8
            assert statuses[400] >= 15
            minted = (await client.post("/admin/v1/keys", json={"name": "made"})).json()["key"]
            canary.places["a key that was made"] = minted
            shown = [
                (await client.get(path)).content
                for path in ("/metrics", "/admin/v1/status", "/admin/v1/requests?limit=1000",
                             "/admin/v1/usage", "/admin/v1/keys", "/v1/models")
            ]  # fmt: skip
            processes = psutil.Process(gateway.process.pid).children(recursive=True)
            lines = [" ".join(process.cmdline()).encode() for process in processes]
            lines += [json.dumps(process.environ()).encode() for process in processes]
    said = gateway.stop().encode()
    for place in canary.places:
        assert all(canary.found_in(form) == [place] for form in canary.forms(place))
    for content in (*shown, *lines, said):
        assert canary.found_in(content) == []
    for path in tmp_path.rglob("*"):
        name = str(path.relative_to(tmp_path))
        if path.is_file() and not name.startswith(_MEANT):
            assert (name, canary.found_in(path.read_bytes())) == (name, [])
