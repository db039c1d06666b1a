"""The HTTP surface: who gets in, what is refused, and how refusals look."""

import asyncio
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from starlette.routing import Route

from freehold.core.binding import Scope
from freehold.core.errors import Code
from freehold.serve import app
from freehold.serve.errors import HTTP
from freehold.serve.operations import OPEN, operations
from tests.harness import running


def test_every_code_has_a_status() -> None:
    assert set(HTTP) == set(Code)


async def _refused(response: httpx2.Response, status: int, code: str) -> dict[str, object]:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    assert "Traceback" not in response.text
    return dict(error)


# Whoever asks; a browser is known there by its cookie alone.
_OPEN = {
    "/healthz", "/metrics", "/readyz", "/admin/v1/login", "/console", "/console/login",
    "/console/callback", "/console/logout", "/console/sessions/end", "/console/style.css",
}  # fmt: skip


async def test_every_route_but_a_few_asks_for_a_key_whatever_the_host_and_path(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as world:
        door = app.build(world.gateway)
        routes = [route for route in door._router._router.routes if isinstance(route, Route)]  # type: ignore[attr-defined]
        assert {path for _, path in OPEN} == _OPEN
        assert {route.path for route in routes} > _OPEN
        async with httpx2.AsyncClient(base_url=world.url) as anonymous:
            for route in routes:
                path = route.path.replace("{alias:path}", "x").replace("{key_id}", "x")
                for method in sorted((route.methods or set()) - {"HEAD"}):
                    response = await anonymous.request(method, path)
                    if path in _OPEN:
                        assert response.status_code in (200, 403, 404, 503)
                    else:
                        await _refused(response, 401, "missing_api_key")
            for host in ("evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "",
                         "0" + ".0" * 3, "[::]", "127.0.0.1:80@evil.example", "localhost.",
                         "xn--lcalhost-jd4b",
                         "127.0.0.1, evil.example", "127.1", "2130706433", "[::ffff:7f00:1]",
                         "LOCALHOST.evil.example", "localhost:8080:evil"):  # fmt: skip
                response = await anonymous.get("/healthz", headers={"host": host})
                await _refused(response, 421, "host_not_allowed")


# How the way to an operation is spelled by whoever hopes that one part reads it as another:
# as the path of something open, or as no path at all.
_SPELLINGS: list[Callable[[str], str]] = [
    lambda path: f"/{path}", lambda path: f"{path}/", lambda path: path.upper(),
    lambda path: path.replace("/", "//"), lambda path: f"/healthz/..{path}",
    lambda path: f"/metrics/%2e%2e{path}", lambda path: f"/.{path}", lambda path: f"/%2e{path}",
    lambda path: f"{path};/healthz", lambda path: f"{path};x=/metrics",
    lambda path: f"{path}?path=/healthz", lambda path: f"{path}#/healthz",
    lambda path: f"{path}%23/healthz", lambda path: f"{path}%3f/healthz",
    lambda path: path.replace("/", "%2f", 2).replace("%2f", "/", 1),
    lambda path: path.replace("1", "%31"), lambda path: path.replace("v", "%76"),
    lambda path: path.replace("/", "\\"), lambda path: f"{path}%00/healthz",
    lambda path: f"{path}.json", lambda path: f"{path}%20", lambda path: f"%20{path}",
    lambda path: f"http://127.0.0.1{path}", lambda path: f"http://evil.example{path}",
    lambda path: f"//127.0.0.1{path}", lambda path: f"/readyz%2f..{path}",
    lambda path: path.replace("a", "\u0430"), lambda path: f"{path}%c0%af",
    lambda path: f"{path}%0d%0ax-api-key:x", lambda path: path.replace("/", "/./"),
]  # fmt: skip


async def test_no_spelling_of_a_path_leads_past_the_key(tmp_path: Path) -> None:
    """Raw, as a client library would tidy them up; each operation in each spelling."""
    async with running(tmp_path) as world:
        paths = {(each.method, each.path) for each in operations(world.gateway)}
        asked = [
            (method, spelled(path.replace("{", "").replace("}", "").replace(":path", "")))
            for method, path in sorted(paths)
            for spelled in _SPELLINGS
        ]
        host, port = world.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        for method, path in asked:
            line = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 0\r\n\r\n"
            writer.write(line.encode())
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError as cut:
                head = cut.partial
            status = int(head.split(b" ")[1])
            assert status in (400, 401, 404, 405), (method, path)
            length = re.search(rb"content-length: (\d+)", head)
            assert length is not None
            text = await reader.readexactly(int(length[1]))
            assert b"error" in text, (method, path)
            if b"connection: close" in head:
                writer.close()
                reader, writer = await asyncio.open_connection(host, int(port))
        writer.close()
        assert len(_SPELLINGS) >= 20


async def test_keys_that_are_wrong_missing_expired_or_revoked_do_not_open(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        revoked = world.mint()
        record = world.gateway.store.keys(world.tenant_id)[-1]
        world.gateway.keyring.revoke(world.tenant_id, record.id)
        cases = {
            "Bearer nonsense": "invalid_api_key",
            "Bearer " + "x" * 5000: "invalid_api_key",
            "Bearer ' OR 1=1 --": "invalid_api_key",
            "Basic abc": "invalid_api_key",
            "Bearer": "invalid_api_key",
            f"Bearer {world.key}x": "invalid_api_key",
            f"Bearer {world.key[:-1]}": "invalid_api_key",
            f"Bearer {revoked}": "invalid_api_key",
            f"Bearer {world.mint(expires_at_us=1)}": "expired_api_key",
        }
        async with httpx2.AsyncClient(base_url=world.url) as client:
            for header, code in cases.items():
                response = await client.get("/v1/models", headers={"authorization": header})
                await _refused(response, 401, code)
            for name in ("x-api-key", "api-key"):
                assert (await client.get("/v1/models", headers={name: world.key})).is_success


async def test_a_revoked_key_is_refused_at_once_though_it_was_cached(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        key = world.mint()
        headers = {"authorization": f"Bearer {key}"}
        async with httpx2.AsyncClient(base_url=world.url) as client, world.http() as admin:
            assert (await client.get("/v1/models", headers=headers)).is_success
            key_id = world.gateway.store.keys(world.tenant_id)[-1].id
            assert (await admin.delete(f"/admin/v1/keys/{key_id}")).is_success
            await _refused(await client.get("/v1/models", headers=headers), 401, "invalid_api_key")
            await _refused(await admin.delete("/admin/v1/keys/key_none"), 404, "not_found")


async def test_a_key_of_another_gateway_is_taken_over_by_its_hash(tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.http() as admin:
        import hashlib

        foreign = "sk-from-elsewhere-1234"
        hashed = hashlib.sha256(foreign.encode()).hexdigest()
        created = await admin.post("/admin/v1/keys", json={"name": "moved", "sha256": hashed})
        assert created.status_code == 201
        assert "key" not in created.json()
        async with httpx2.AsyncClient(base_url=world.url) as client:
            headers = {"authorization": f"Bearer {foreign}"}
            assert (await client.get("/v1/models", headers=headers)).is_success
        again = await admin.post("/admin/v1/keys", json={"name": "moved", "sha256": hashed})
        await _refused(again, 409, "conflict")


async def test_nobody_grants_more_than_they_have(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        world.key = world.mint(Scope.ADMIN, models=frozenset({"fake-model"}))
        async with world.http() as client:
            await _refused(
                await client.post("/admin/v1/keys", json={"name": "a", "scopes": ["infer"]}),
                403, "insufficient_permissions",
            )  # fmt: skip
            odd = {"name": "a", "models": ["fake-model other"]}
            await _refused(await client.post("/admin/v1/keys", json=odd), 400, "invalid_value")
            more = {"name": "a", "scopes": ["admin"], "models": ["fake-model", "other"]}
            await _refused(
                await client.post("/admin/v1/keys", json=more), 403, "insufficient_permissions"
            )
            prod = {"name": "a", "scopes": ["admin"], "environment": "prod"}
            await _refused(
                await client.post("/admin/v1/keys", json=prod), 403, "insufficient_permissions"
            )


async def test_a_key_without_the_scope_or_the_model_gets_nowhere(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        world.key = world.mint(Scope.INFER, models=frozenset({"other"}))
        await _refused(await world.chat("hello"), 404, "model_not_found")
        async with world.http() as client:
            await _refused(await client.get("/admin/v1/status"), 403, "insufficient_permissions")
            assert (await client.get("/v1/models")).json()["data"] == []


BAD_BODIES = [
    (b"", "invalid_json"),
    (b"{", "invalid_json"),
    (b"[]", "invalid_json"),
    (b'{"model": "fake-model", "messages": NaN}', "invalid_json"),
    (b'\xff\xfe{"a":1}', "invalid_json"),
    (b"[" * 100_000, "invalid_json"),
    ({"messages": []}, "invalid_value"),
    ({"model": "fake-model", "messages": []}, "invalid_value"),
    ({"model": "fake-model", "messages": "hello"}, "invalid_value"),
    ({"model": "fake-model", "messages": [{"role": "robot", "content": "x"}]}, "invalid_value"),
    ({"model": "fake-model", "messages": [{"role": "user", "content": 7}]}, "invalid_value"),
    ({"temperature": -1}, "invalid_value"),
    ({"temperature": "hot"}, "invalid_value"),
    ({"max_tokens": -5}, "invalid_value"),
    ({"max_tokens": 10**30}, "invalid_value"),
    ({"n": 10**6}, "invalid_value"),
    ({"stop": ["x"] * 10_000}, "invalid_value"),
    ({"seed": 1.5}, "invalid_value"),
    ({"top_logprobs": 100}, "invalid_value"),
    ({"logit_bias": {"1": 1000}}, "invalid_value"),
    ({"stream_options": {"include_usage": True}}, "invalid_value"),
    ({"cache_salt": "theirs"}, "unknown_parameter"),
    ({"lora": [{"id": 0, "scale": 1}]}, "unknown_parameter"),
    ({"id_slot": 3}, "unknown_parameter"),
    ({"cache_prompt": True}, "unknown_parameter"),
    ({"n_discard": -1}, "unknown_parameter"),
    ({"chat_template": "{{ 7*7 }}"}, "unknown_parameter"),
    ({"prompt_embeds": "AAAA"}, "unknown_parameter"),
    ({"grammar": "root ::= x"}, "unknown_parameter"),
    ({"audio": {"voice": "alloy", "format": "wav"}}, "unsupported_parameter"),
    ({"store": True}, "unsupported_parameter"),
    ({"web_search_options": {}}, "unsupported_parameter"),
    ({"model": "nobody"}, "model_not_found"),
    ({"model": "../../etc/passwd"}, "model_not_found"),
    ({"model": "fake-model'; DROP TABLE requests; --"}, "model_not_found"),
]


@pytest.mark.parametrize(("body", "code"), BAD_BODIES)
async def test_bad_bodies_get_one_sentence_and_leave_no_trace(
    tmp_path: Path, body: bytes | dict[str, object], code: str
) -> None:
    async with running(tmp_path) as world, world.http() as client:
        if isinstance(body, dict):
            whole = {"model": "fake-model", "messages": [{"role": "user", "content": "x"}]}
            raw = json.dumps(body if "messages" in body else {**whole, **body}).encode()
        else:
            raw = body
        response = await client.post("/v1/chat/completions", content=raw)
        error = await _refused(response, HTTP[Code(code)][0], code)
        assert str(error["message"]).count("\n") == 0
        assert world.records() == []


async def test_an_image_is_refused_by_its_place_where_there_is_no_vision(tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.http() as client:
        parts = [
            {"type": "text", "text": "what is this?"},
            {"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}},
        ]
        body = {"model": "fake-model", "messages": [{"role": "user", "content": parts}]}
        response = await client.post("/v1/chat/completions", json=body)
        error = await _refused(response, 400, "unsupported_parameter")
        assert error["param"] == "messages[0].content[1]"


async def test_a_body_of_100_mb_is_refused_without_being_read(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        host, port = world.url.removeprefix("http://").split(":")
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n"
            f"authorization: Bearer {world.key}\r\n"
        )
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"{head}content-length: 100000000\r\n\r\n".encode() + b"x" * 1000)
        status = await reader.readline()
        assert b" 413 " in status
        writer.close()
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"{head}transfer-encoding: chunked\r\n\r\n".encode())
        sent = 0
        try:
            while sent < 100_000_000 and not reader._buffer:  # type: ignore[attr-defined]
                writer.write(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
                await writer.drain()
                sent += 65_536
        except ConnectionError:
            pass
        assert sent < 20_000_000
        assert (await world.chat("still there?")).status_code == 200
        writer.close()


async def test_endless_headers_are_cut_off(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        host, port = world.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n")
        for number in range(3000):
            writer.write(b"x-h%d: %s\r\n" % (number, b"y" * 64))
        assert b" 431 " in await reader.readline()
        writer.close()
        assert (await world.chat("fine")).status_code == 200


async def test_identity_headers_from_clients_change_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.http() as client:
        plain = (await client.get("/admin/v1/keys")).json()
        for name in ("x-user", "x-tenant", "x-forwarded-for", "x-forwarded-user", "forwarded"):
            got = await client.get("/admin/v1/keys", headers={name: "ten_other"})
            assert got.json() == plain


async def test_the_answer_names_the_weights_that_made_it(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        for streams in (False, True):
            response = await world.chat("who?", stream=streams)
            assert response.headers["x-freehold-model-digest"].startswith("sha256:abab")
            assert response.headers["x-freehold-engine"] == "fake"
            assert response.headers["x-freehold-weights"] == "proved"
            assert response.headers["x-freehold-request-id"].startswith("req_")


async def test_nothing_of_a_conversation_or_a_key_is_kept(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        response = await world.chat("canary-prompt-7261")
        assert response.status_code == 200
        word = response.json()["choices"][0]["message"]["content"].split()[0]
        secret = world.key
    for folder, _, names in os.walk(tmp_path):
        for name in names:
            content = (Path(folder) / name).read_bytes()
            assert b"canary-prompt-7261" not in content
            assert word.encode() not in content
            assert secret.encode() not in content


async def test_usage_adds_up_by_key_model_and_day(tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.http() as client:
        for number in range(3):
            await world.chat(f"use {number}")
        rows = (await client.get("/admin/v1/usage?days=1")).json()["data"]
        assert [(row["requests"], row["failed"], row["tokens_out"]) for row in rows] == [(3, 0, 48)]
        for bad in ("days=0", "days=x", "nonsense=1"):
            assert (await client.get(f"/admin/v1/usage?{bad}")).status_code == 400


async def test_embeddings_come_as_floats_or_base64(tmp_path: Path) -> None:
    import openai

    from freehold.core.model import Task

    async with running(tmp_path, task=Task.EMBEDDINGS) as world:
        client = openai.AsyncOpenAI(base_url=f"{world.url}/v1", api_key=world.key, max_retries=0)
        packed = await client.embeddings.create(model="fake-model", input=["a", "b"])
        plain = await client.embeddings.create(
            model="fake-model", input=["a", "b"], encoding_format="float"
        )
        assert packed.data[1].embedding == pytest.approx(plain.data[1].embedding)
        await _refused(await world.chat("hello"), 400, "unsupported_endpoint")
        await client.close()


async def test_shutdown_finishes_what_it_began_and_refuses_what_is_new(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.replica.ensure_ready(30)
        begun = asyncio.create_task(world.chat("[[slow 0.05]] last one"))
        while not len(world.gateway.watch):
            await asyncio.sleep(0.01)
        world.gateway.is_draining = True
        late = await world.chat("too late")
        await _refused(late, 503, "shutting_down")
        await world.gateway.watch.drain(10)
        assert (await begun).status_code == 200


async def test_a_wrong_method_is_told_the_right_ones(tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.http() as client:
        for path, right in {
            "/admin/v1/keys": {"GET", "HEAD", "POST"},
            "/admin/v1/keys/key_x": {"DELETE", "PATCH"},
            "/v1/chat/completions": {"POST"},
        }.items():
            response = await client.request("PUT", path)
            await _refused(response, 405, "method_not_allowed")
            assert set(response.headers["allow"].split(", ")) == right
        head = await client.head("/v1/models")
        assert (head.status_code, head.content) == (200, b"")


async def test_a_query_of_many_or_repeated_parameters_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.http() as client:
        for query in ("a=1&" * 100, "days=1&days=2", "days=1;days=2", "days=1&%64ays=2", "&" * 500):
            await _refused(await client.get(f"/admin/v1/usage?{query}"), 400, "invalid_value")
