"""What remote upstreams do to us: right codes for the caller, one settlement for each
request, the credential to its own origin only, nothing of one answer in another."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from freehold.config.schema import LimitSettings
from freehold.core.errors import Code
from freehold.engines import openai_http
from tests import upstream as far
from tests.harness import Running, running
from tests.upstream import Answer, Asked, Upstream

World = tuple[Running, Upstream]


@asynccontextmanager
async def _world(
    folder: Path, answer: Answer, limits: LimitSettings | None = None
) -> AsyncIterator[World]:
    async with (
        far.upstream(answer) as upstream,
        running(folder, limits=limits, upstreams=[far.settings(upstream, folder)]) as world,
    ):
        yield world, upstream


async def _ask(world: Running, prompt: str = "hello", **fields: object) -> httpx2.Response:
    return await world.chat(prompt, model="far", **fields)


def _always(content: bytes) -> Answer:
    return lambda asked: asked.say(content)


def _code(response: httpx2.Response) -> str:
    return str(response.json()["error"]["code"])


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize(
    ("said", "status", "code", "asked", "outcome"),
    [
        (401, 502, Code.UPSTREAM_REFUSED, 1, "engine_failed"),
        (403, 502, Code.UPSTREAM_REFUSED, 1, "engine_failed"),
        (404, 502, Code.UPSTREAM_REFUSED, 1, "engine_failed"),
        (400, 400, Code.INVALID_VALUE, 1, "refused"),
        (429, 429, Code.UPSTREAM_RATE_LIMITED, 1, "refused"),
        (500, 502, Code.ENGINE_FAILED, 2, "engine_failed"),
        (503, 503, Code.ENGINE_UNAVAILABLE, 2, "engine_failed"),
        (307, 502, Code.ENGINE_FAILED, 2, "engine_failed"),
        (204, 502, Code.ENGINE_FAILED, 2, "engine_failed"),
    ],
)
async def test_each_refusal_of_an_upstream_has_its_own_code_for_the_caller(
    tmp_path: Path, said: int, status: int, code: Code, asked: int, outcome: str, streams: bool
) -> None:
    answer = _always(far.status(said, {"error": {"message": "secret text"}}, retry_after="7"))
    async with _world(tmp_path, answer) as (world, upstream):
        response = await _ask(world, stream=streams)
        assert (response.status_code, _code(response)) == (status, code)
        assert "secret text" not in response.text
        if said in (429, 503):
            assert response.headers["retry-after"] == "7"
        assert len(upstream.seen) == asked
        row = (await world.settled(1))[0]
        assert (row["outcome"], row["tokens_out"]) == (outcome, 0)


@pytest.mark.parametrize("streams", [False, True])
async def test_an_upstream_that_is_down_is_told_as_such_and_used_again_when_it_is_back(
    tmp_path: Path, streams: bool
) -> None:
    async with far.upstream(_always(b"")) as gone:
        pass
    async with running(tmp_path, upstreams=[far.settings(gone, tmp_path)]) as world:
        response = await _ask(world, stream=streams)
        assert (response.status_code, _code(response)) == (503, Code.ENGINE_UNAVAILABLE)
        assert "retry-after" in response.headers
        back = Upstream(gone.url, _always(far.STREAM + far.token("hi") + far.end(1)))
        port = int(gone.url.rsplit(":", 1)[1])
        server = await asyncio.start_server(back.serve, "127.0.0.1", port)
        assert (await _ask(world, stream=True)).text.count("[DONE]") == 1
        server.close()
        outcomes = {row["outcome"] for row in await world.settled(2)}
        assert outcomes == {"engine_failed", "ok"}


async def test_one_failure_before_the_first_byte_is_not_noticed(tmp_path: Path) -> None:
    async def fail_once(asked: Asked) -> None:
        is_first = len(upstream.seen) == 1
        await asked.say(far.status(500) if is_first else far.whole("well"))

    async with _world(tmp_path, fail_once) as (world, upstream):
        response = await _ask(world)
        answer = response.json()
        assert answer["choices"][0]["message"]["content"] == "well"
        assert response.headers["x-freehold-weights"] == "claimed"  # nothing is known of them
        row = (await world.settled(1))[0]
        assert (row["outcome"], row["tokens_in"], row["tokens_out"]) == ("ok", 5, 3)
        assert len(upstream.seen) == 2


@pytest.mark.parametrize("said", [301, 302, 303, 307, 308])
async def test_a_redirect_to_another_origin_gets_neither_the_credential_nor_the_prompt(
    tmp_path: Path, said: int
) -> None:
    async with far.upstream(_always(far.whole("stolen"))) as thief:
        answer = _always(far.status(said, location=f"{thief.url}/v1/chat/completions"))
        async with _world(tmp_path, answer) as (world, upstream):
            assert (await _ask(world)).status_code == 502
            assert (await _ask(world, stream=True)).status_code == 502
            await world.settled(2)
        assert thief.connections == 0
    sent = upstream.seen[0].headers
    assert sent["authorization"] == f"Bearer {far.KEY}"


@pytest.mark.parametrize("streams", [False, True])
async def test_an_upstream_that_says_nothing_is_left_in_time(tmp_path: Path, streams: bool) -> None:
    async def never(asked: Asked) -> None:
        await asyncio.sleep(60)

    limits = LimitSettings(first_token_s=0.5)
    async with _world(tmp_path, never, limits) as (world, upstream):
        response = await _ask(world, stream=streams)
        assert (response.status_code, _code(response)) == (504, Code.ENGINE_TIMEOUT)
        assert (await world.settled(1))[0]["outcome"] == "engine_timeout"
        async with asyncio.timeout(30):
            while not upstream.gone:
                await asyncio.sleep(0.01)
        await world.replica.ensure_ready(30)
        assert (await _readiness(world)) == 200


async def test_an_upstream_that_falls_silent_is_left_in_time_and_billed_so_far(
    tmp_path: Path,
) -> None:
    async def stall(asked: Asked) -> None:
        await asked.say(far.STREAM + far.token("one") + far.token("two"))
        while True:  # comments are no tokens
            await asked.say(far.piece(b": still here\n\n"))
            await asyncio.sleep(0.02)

    async with _world(tmp_path, stall, LimitSettings(next_token_s=0.5)) as (world, _):
        response = await _ask(world, stream=True)
        assert '"code":"engine_timeout"' in response.text
        assert "[DONE]" not in response.text
        row = (await world.settled(1))[0]
        assert (row["outcome"], row["tokens_out"], row["estimated"]) == ("engine_timeout", 2, True)


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        far.LAST,
        far.piece(b"data: {not json\n\n"),
        far.piece(b"data: [1]\n\n"),
        far.piece(b'data: {"error": {"message": "secret text"}}\n\n'),
        far.piece(b'data: {"choices": {}}\n\n'),
    ],
)
async def test_a_stream_that_breaks_ends_with_an_error_and_is_billed_so_far(
    tmp_path: Path, broken: bytes
) -> None:
    async def break_off(asked: Asked) -> None:
        await asked.say(far.STREAM + far.token("one"))
        await asyncio.sleep(0.05)
        await asked.say(far.token("two"))
        await asyncio.sleep(0.05)
        await asked.say(broken)
        raise ConnectionResetError

    async with _world(tmp_path, break_off) as (world, upstream):
        response = await _ask(world, stream=True)
        assert '"code":"engine_failed"' in response.text
        assert "[DONE]" not in response.text
        assert "secret text" not in response.text
        row = (await world.settled(1))[0]
        assert (row["outcome"], row["tokens_out"]) == ("engine_failed", 2)
        assert len(upstream.seen) == 1


async def _forever(asked: Asked, content: bytes) -> None:
    while True:
        await asked.say(content)


async def test_a_stream_that_is_no_http_any_more_is_left_in_time(tmp_path: Path) -> None:
    async def stray(asked: Asked) -> None:
        await asked.say(far.STREAM + far.token("one"))
        await asyncio.sleep(0.05)
        await asked.say(b"no length\r\n" + far.token("two"))
        await asyncio.sleep(60)

    async with _world(tmp_path, stray, LimitSettings(next_token_s=0.5)) as (world, _):
        response = await _ask(world, stream=True)
        assert '"code":"engine_' in response.text
        assert "[DONE]" not in response.text
        assert "two" not in response.text
        row = (await world.settled(1))[0]
        assert row["outcome"] in ("engine_failed", "engine_timeout")
        assert row["tokens_out"] == 1


_ENDLESS: dict[str, Callable[[Asked], bytes]] = {
    "an endless line": lambda asked: far.STREAM + far.piece(b"data: "),
    "an endless body": lambda asked: far.STREAM.replace(b"text/event-stream", b"application/json"),
    "an endless error": lambda asked: far.STREAM.replace(b"200 OK", b"400 Bad"),
}


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("kind", _ENDLESS)
async def test_what_never_ends_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, streams: bool
) -> None:
    monkeypatch.setattr(openai_http, "_MAX_ANSWER_BYTES", 2 * 2**20)

    async def endless(asked: Asked) -> None:
        await asked.say(_ENDLESS[kind](asked))
        await _forever(asked, far.piece(b"x" * 65_536))

    async with _world(tmp_path, endless) as (world, upstream):
        response = await _ask(world, stream=streams)
        assert response.status_code in (400, 502)
        assert "xxxx" not in response.text
        await world.settled(1)
        async with asyncio.timeout(30):
            while upstream.gone < len(upstream.seen):
                await asyncio.sleep(0.01)


async def test_an_answer_that_nobody_asked_for_is_given_to_nobody(tmp_path: Path) -> None:
    """It lies in a kept connection when the next request takes it."""

    async def once_too_often(asked: Asked) -> None:
        await asked.say(far.whole(f"for {asked.prompt}"))
        await asyncio.sleep(0.05)
        await asked.say(far.whole("for somebody else"))

    async with _world(tmp_path, once_too_often) as (world, _):
        for number in range(4):
            answer = (await _ask(world, f"me {number}")).json()
            assert answer["choices"][0]["message"]["content"] == f"for me {number}"
            await asyncio.sleep(0.15)
        await world.settled(4)


async def test_streams_with_random_cancels_over_kept_connections_keep_apart(
    tmp_path: Path,
) -> None:
    async def echo(asked: Asked) -> None:
        await asked.say(far.STREAM)
        for number in range(20):
            await asked.say(far.token(f"{asked.prompt}/{number} "))
            await asyncio.sleep(0.001)
        await asked.say(far.end(20))

    chooser = random.Random(3)
    async with _world(tmp_path, echo) as (world, upstream), world.http() as client:
        gate = asyncio.Semaphore(40)

        async def one(number: int) -> None:
            body = {"model": "far", "stream": True}
            body["messages"] = [{"role": "user", "content": f"canary-{number}"}]  # type: ignore[assignment]
            leaves = chooser.random() < 0.4
            async with gate, client.stream("POST", "/v1/chat/completions", json=body) as reply:
                seen = ""
                async for text in reply.aiter_text():
                    seen += text
                    if leaves and len(seen) > 800:
                        break
            assert seen.count("canary-") == seen.count(f"canary-{number}/") > 0

        await asyncio.gather(*(one(number) for number in range(300)))
        rows = await world.settled(300)
        assert {row["outcome"] for row in rows} == {"ok", "client_gone"}
        assert upstream.connections < 300  # connections were kept, or this shows nothing


async def test_a_client_that_goes_stops_the_upstream_and_is_billed_so_far(tmp_path: Path) -> None:
    async def slowly(asked: Asked) -> None:
        await asked.say(far.STREAM)
        while True:
            await asked.say(far.token("word "))
            await asyncio.sleep(0.02)

    async with _world(tmp_path, slowly) as (world, upstream):
        async with world.http() as client:
            body = {"model": "far", "stream": True, "messages": [{"role": "user", "content": "x"}]}
            async with client.stream("POST", "/v1/chat/completions", json=body) as reply:
                text = ""
                async for part in reply.aiter_text():
                    text += part
                    if text.count("word") >= 5:
                        break
        async with asyncio.timeout(30):
            while not upstream.gone:
                await asyncio.sleep(0.01)
        row = (await world.settled(1))[0]
        assert row["outcome"] == "client_gone"
        assert row["tokens_out"] >= 5


async def _readiness(world: Running) -> int:
    async with world.http() as client:
        return (await client.get("/readyz")).status_code
