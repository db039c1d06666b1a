"""What goes wrong in the night. After each fault: one settlement for each accepted
request, nothing of one request in another, and the service ready again."""

import asyncio
import json
import os
import random
import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from freehold.config.schema import LimitSettings
from freehold.core.errors import Code
from freehold.engines.fake import Fake, tokens_for
from tests.harness import Running, asked, running
from tests.serve.kinds import FAKE, REAL, Kind

_ON_BOTH = pytest.mark.parametrize("kind", [FAKE, REAL], ids=lambda kind: kind.name)


def _code(response: httpx2.Response) -> str:
    code = response.json()["error"]["code"]
    assert isinstance(code, str)
    return code


async def _ready_again(world: Running) -> None:
    await world.replica.ensure_ready(20)
    answer = await world.chat("ready again?")
    assert answer.status_code == 200


async def test_an_engine_killed_in_mid_stream_ends_it_with_an_error_and_no_done(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as world:
        response = await world.chat("[[crash 4]] once", stream=True)
        assert response.status_code == 200
        assert "[DONE]" not in response.text
        assert '"code":"engine_failed"' in response.text
        row = (await world.settled(1))[0]
        assert (row["outcome"], row["tokens_out"], row["estimated"]) == ("engine_failed", 3, True)
        await _ready_again(world)


@pytest.mark.parametrize(
    ("kind", "seed"),
    [(FAKE, 1), (FAKE, 2), (FAKE, 3), (REAL, 1)],
    ids=lambda value: value.name if isinstance(value, Kind) else None,
)
async def test_an_engine_killed_under_many_streams_ends_each_once_and_other_pools_go_on(
    tmp_path: Path, kind: Kind, seed: int
) -> None:
    chooser = random.Random(seed)
    async with kind.running(tmp_path, others={"other-model": Fake()}) as world:
        for replica in world.replicas.values():
            await replica.ensure_ready(30)
        got: dict[str, str] = {}

        async def follow(client: httpx2.AsyncClient, prompt: str, body: dict[str, Any]) -> None:
            got[prompt] = ""
            async with client.stream("POST", "/v1/chat/completions", json=body) as reply:
                assert reply.status_code == 200
                async for text in reply.aiter_text():
                    got[prompt] += text

        victims = {f"victim {number}": kind for number in range(16)}
        neighbours: dict[str, Kind] = {f"neighbour {number}": FAKE for number in range(8)}
        async with world.http() as client:
            streams = [
                asyncio.create_task(
                    follow(client, prompt, of.body(prompt, of.long, model=model, stream=True))
                )
                for prompts, model in ((victims, "fake-model"), (neighbours, "other-model"))
                for prompt, of in prompts.items()
            ]
            wanted = chooser.randrange(1, 16 * 40)
            while sum(text.count('"content":"') for text in got.values()) < wanted:
                await asyncio.sleep(0.002)
            pid = world.replica.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await asyncio.gather(*streams)
        rows = await world.settled(24)
        await world.replica.ensure_ready(20)
        broken = [prompt for prompt in victims if "[DONE]" not in got[prompt]]
        assert broken
        assert all('"code":"engine_failed"' in got[prompt] for prompt in broken)
        asked_of = victims | neighbours
        texts = (asked_of[prompt].whole(world, prompt, asked_of[prompt].long) for prompt in got)
        whole = dict(zip(got, await asyncio.gather(*texts), strict=True))
        assert len(set(whole.values())) == len(whole)
        assert all(whole[prompt].startswith("".join(_texts(text))) for prompt, text in got.items())
        ended = [prompt for prompt in got if prompt not in broken]
        assert set(neighbours) <= set(ended)
        assert all("".join(_texts(got[prompt])) == whole[prompt] for prompt in ended)
        failed = [row["tokens_out"] for row in rows if row["outcome"] == "engine_failed"]
        assert sorted(failed) == sorted(len(_texts(got[prompt])) for prompt in broken)
        assert sum(row["outcome"] == "ok" for row in rows) == len(ended)
        assert world.replicas["other-model"].restarts == 0
        await _ready_again(world)


def _texts(stream: str) -> list[str]:
    """What each chunk of a stream adds to the text."""
    chunks = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: {")]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk.get("choices", ())]
    return [delta["content"] for delta in deltas if delta.get("content")]


async def test_an_engine_killed_by_the_system_before_the_first_byte_is_retried(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as world:
        await world.replica.ensure_ready(30)
        slow = asyncio.create_task(world.chat("[[slow 0.2]] retried"))
        while not (await world.seen())["running"]:
            await asyncio.sleep(0.02)
        pid = world.replica.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        response = await slow
        assert response.status_code == 200
        words = response.json()["choices"][0]["message"]["content"]
        assert words == "".join(tokens_for("[[slow 0.2]] retried", 16))
        assert [row["outcome"] for row in await world.settled(1)] == ["ok"]


async def test_a_prompt_that_kills_the_engine_twice_is_not_tried_again(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        assert _code(await world.chat("[[crash 2]] poison")) == Code.ENGINE_FAILED
        await world.replica.ensure_ready(20)
        restarts = world.replica.restarts
        assert _code(await world.chat("[[crash 2]] poison")) == Code.PROMPT_QUARANTINED
        assert world.replica.restarts == restarts
        await _ready_again(world)


@pytest.mark.parametrize(("at", "streams"), [(1, True), (3, True), (1, False), (3, False)])
async def test_a_hung_engine_is_noticed_and_restarted(
    tmp_path: Path, at: int, streams: bool
) -> None:
    patience = {"first_token_s": 0.6} if at == 1 else {"next_token_s": 2.0}
    async with running(tmp_path, limits=LimitSettings(**patience)) as world:
        response = await world.chat(f"[[hang {at}]]", stream=streams)
        if at > 1 and streams:
            assert response.status_code == 200
            assert '"code":"engine_timeout"' in response.text
            assert "[DONE]" not in response.text
        else:
            assert response.status_code == 504
            assert _code(response) == Code.ENGINE_TIMEOUT
        row = (await world.settled(1))[0]
        assert (row["outcome"], row["tokens_out"]) == ("engine_timeout", at - 1)
        await _ready_again(world)


@_ON_BOTH
async def test_a_stopped_engine_process_is_killed_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    monkeypatch.setattr("freehold.deploy.replica._PROBE_S", 0.5)
    monkeypatch.setattr("freehold.deploy.replica._STOP_S", 0.5)  # it hears no request to end
    limits = LimitSettings(first_token_s=0.6)
    async with kind.running(tmp_path, limits=limits) as world:
        await world.replica.ensure_ready(30)
        first = world.replica.pid
        assert first is not None
        os.kill(first, signal.SIGSTOP)  # its port stays open, it answers nothing
        assert _code(await world.chat("anybody?")) == Code.ENGINE_TIMEOUT
        await _ready_again(world)
        assert world.replica.pid != first


async def test_a_prompt_longer_than_the_context_is_refused_with_its_size(tmp_path: Path) -> None:
    async with running(tmp_path, context=200) as world:
        response = await world.chat("word " * 400)
        assert response.status_code == 400
        assert _code(response) == Code.CONTEXT_LENGTH_EXCEEDED
        assert "404 tokens" in response.json()["error"]["message"]
        row = (await world.settled(1))[0]
        assert (row["outcome"], row["tokens_in"], row["tokens_out"]) == ("refused", 0, 0)
        assert (await world.seen())["seen"] == []


@_ON_BOTH
async def test_clients_that_go_at_random_points_are_billed_and_stop_the_engine(
    tmp_path: Path, kind: Kind
) -> None:
    async with kind.running(tmp_path) as world:
        await world.replica.ensure_ready(30)
        chooser = random.Random(7)

        client = world.http()

        async def leave_early(request: "asyncio.Task[None]") -> None:
            await asyncio.sleep(chooser.uniform(0.3, 1.2))
            request.cancel()
            await asyncio.gather(request, return_exceptions=True)

        places = world.gateway.pools["fake-model"].capabilities.concurrency
        count = min(30, places)
        bodies = [
            kind.body(f"client {number}", 3 * kind.long, stream=number % 2 == 0)
            for number in range(count)
        ]
        requests = [asyncio.create_task(_consume(client, body)) for body in bodies]
        async with asyncio.timeout(8):
            while len(world.records()) < count:  # who goes before that was never here
                await asyncio.sleep(0.02)
        await asyncio.gather(*map(leave_early, requests))
        async with asyncio.timeout(8):  # their answers would take twelve seconds
            while not await kind.is_idle(world):
                await asyncio.sleep(0.02)
        rows = await world.settled(count)
        assert {row["outcome"] for row in rows} == {"client_gone"}
        assert all(row["tokens_in"] > 0 for row in rows)
        assert sum(row["tokens_out"] for row in rows) > count
        if kind is FAKE:
            assert len(set((await world.seen())["cut"])) == count
        assert world.replica.in_flight == 0
        await client.aclose()
        await _ready_again(world)


async def test_who_leaves_while_it_waits_is_billed_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, streams=1) as world:
        await world.replica.ensure_ready(30)
        first = asyncio.create_task(world.chat("[[slow 0.05]] first"))
        while not (await world.seen())["running"]:
            await asyncio.sleep(0.01)
        waiting = [asyncio.create_task(world.chat(f"waiting {number}")) for number in range(5)]
        while world.gateway.pools["fake-model"].status().queued < 5:
            await asyncio.sleep(0.01)
        for request in waiting:
            request.cancel()
        assert (await first).status_code == 200
        rows = await world.settled(6)
        gone = [row for row in rows if row["outcome"] == "client_gone"]
        assert [(row["tokens_in"], row["tokens_out"]) for row in gone] == [(0, 0)] * 5
        assert len((await world.seen())["seen"]) == 1
        await _ready_again(world)


async def _consume(client: httpx2.AsyncClient, body: dict[str, object]) -> None:
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        async for _ in response.aiter_bytes():
            pass


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (FAKE, asked("[[tokens 200000]] slow reader")),
        (REAL, REAL.body("slow reader", 3 * REAL.long, logprobs=True, top_logprobs=20)),
    ],
    ids=lambda value: value.name if isinstance(value, Kind) else "",
)
async def test_a_client_that_reads_nothing_is_cut_and_others_go_on(
    tmp_path: Path, kind: Kind, body: dict[str, Any]
) -> None:
    limits = LimitSettings(slow_client_s=0.8)
    async with kind.running(tmp_path, limits=limits) as world:
        await world.replica.ensure_ready(30)
        host, port = world.url.removeprefix("http://").split(":")
        content = json.dumps(body | {"stream": True}).encode()
        reader, writer = await asyncio.open_connection(host, int(port), limit=2)
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer "
            + world.key.encode()
            + b"\r\ncontent-length: %d\r\n\r\n" % len(content)
            + content
        )
        await reader.read(1)
        assert (await world.chat("a neighbour")).status_code == 200
        rows = await world.settled(2)
        assert sorted(row["outcome"] for row in rows) == ["client_too_slow", "ok"]
        writer.close()
        await _ready_again(world)


async def test_a_herd_at_start_up_waits_for_the_engine_and_is_served(tmp_path: Path) -> None:
    async with running(tmp_path, "--start-delay=1", streams=8) as world:
        answers = await asyncio.gather(*(world.chat(f"herd {number}") for number in range(60)))
        assert {answer.status_code for answer in answers} == {200}
        for number, answer in enumerate(answers):
            expected = "".join(tokens_for(f"herd {number}", 16))
            assert answer.json()["choices"][0]["message"]["content"] == expected
        await world.settled(60)


async def test_a_herd_larger_than_the_queue_is_bounded_and_nobody_is_lost(tmp_path: Path) -> None:
    """While the model loads: those who find room are served, the rest is told when to
    come back and is served then."""
    limits = LimitSettings(queue_length=100)
    async with running(tmp_path, "--start-delay=6", streams=8, limits=limits) as world:
        async with world.http(limits=httpx2.Limits(max_connections=200)) as client:

            async def ask(number: int) -> httpx2.Response:
                return await client.post("/v1/chat/completions", json=asked(f"herd {number}"))

            answers = await asyncio.gather(*(ask(number) for number in range(200)))
            served = [number for number in range(200) if answers[number].status_code == 200]
            refused = [answer for answer in answers if answer.status_code != 200]
            assert len(served) == 100
            assert {answer.status_code for answer in refused} == {503}
            assert {_code(answer) for answer in refused} == {Code.OVERLOADED}
            assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
            for number in served:
                expected = "".join(tokens_for(f"herd {number}", 16))
                assert answers[number].json()["choices"][0]["message"]["content"] == expected
            rest = [number for number in range(200) if number not in served]
            again = await asyncio.gather(*(ask(number) for number in rest))
            assert {answer.status_code for answer in again} == {200}
        rows = await world.settled(300)
        assert sum(row["outcome"] == "ok" for row in rows) == 200
        unserved = [row for row in rows if row["outcome"] == "refused"]
        assert len(unserved) == 100
        assert {(row["tokens_in"], row["tokens_out"]) for row in unserved} == {(0, 0)}


async def test_sdk_retries_wait_as_they_are_told_and_do_not_multiply(tmp_path: Path) -> None:
    """The OpenAI SDK as it comes: two retries, and `Retry-After` between them."""
    limits = LimitSettings(queue_length=2)
    async with running(tmp_path, limits=limits, streams=2) as world:
        await world.replica.ensure_ready(30)

        async def one(number: int) -> bool:
            headers = {"x-freehold-conversation": f"client-{number}"}
            async with openai.AsyncOpenAI(
                base_url=f"{world.url}/v1", api_key=world.key, default_headers=headers
            ) as client:
                await client.chat.completions.create(
                    model="fake-model",
                    messages=[{"role": "user", "content": f"[[slow 0.02]] {number}"}],
                )
            return True

        served = await asyncio.gather(*(one(number) for number in range(9)), return_exceptions=True)
        attempts: dict[str, list[int]] = {}
        rows = world.records()
        for row in sorted(rows, key=lambda row: row["created_at_us"]):
            attempts.setdefault(row["conversation_id"], []).append(row["created_at_us"])
        assert len(attempts) == 9
        assert served.count(True) == sum(row["outcome"] == "ok" for row in rows) >= 8
        assert sum(row["error_code"] == "overloaded" for row in rows) >= 5
        assert max(len(times) for times in attempts.values()) <= 3
        for times in attempts.values():  # the gateway had said five seconds
            assert all(later - earlier >= 5_000_000 for earlier, later in pairwise(times))
        await world.settled(len(rows))
        await _ready_again(world)


async def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(tmp_path: Path) -> None:
    limits = LimitSettings(queue_length=2, queue_s=0.5)
    async with running(tmp_path, limits=limits, streams=1) as world:
        await world.replica.ensure_ready(30)
        answers = await asyncio.gather(
            *(world.chat(f"[[slow 0.1]] crowd {number}") for number in range(8))
        )
        refused = [answer for answer in answers if answer.status_code == 503]
        assert len(refused) >= 5
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        rows = await world.settled(8)
        assert sum(row["outcome"] == "ok" for row in rows) == 8 - len(refused)
        await _ready_again(world)


async def test_a_thousand_streams_with_random_cancels_never_see_each_others_words(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, streams=128, limits=LimitSettings(queue_length=2000)) as world:
        await world.replica.ensure_ready(30)
        chooser = random.Random(11)
        limits = httpx2.Limits(max_connections=200)
        async with world.http(limits=limits) as client:
            gate = asyncio.Semaphore(150)

            async def one(number: int) -> bool:
                prompt = f"canary {number} {chooser.random()}"
                body = {
                    "model": "fake-model",
                    "stream": True,
                    "messages": [{"role": "user", "content": prompt}],
                }
                mine = tokens_for(prompt, 1)[0].split("-")[0].strip()
                leaves = chooser.random() < 0.3
                async with gate, client.stream("POST", "/v1/chat/completions", json=body) as reply:
                    seen = ""
                    async for text in reply.aiter_text():
                        seen += text
                        if leaves and len(seen) > 500:
                            break
                words = seen.split('"content":" ')[1:]
                assert words
                assert all(word.startswith(mine) for word in words if not word.startswith('"'))
                return leaves

            left = await asyncio.gather(*(one(number) for number in range(1000)))
        rows = await world.settled(1000)
        gone = sum(row["outcome"] == "client_gone" for row in rows)
        assert gone <= sum(left)
        assert sum(row["outcome"] == "ok" for row in rows) == 1000 - gone
        await _ready_again(world)


@pytest.mark.parametrize("kind", ["not-json", "bad-utf8", "huge-line", "wrong-id", "no-done"])
async def test_garbage_from_an_engine_never_reaches_a_client(tmp_path: Path, kind: str) -> None:
    async with running(tmp_path) as world:
        response = await world.chat(f"[[garbage {kind}]]")
        assert response.status_code == 502
        assert _code(response) in (Code.ENGINE_FAILED, Code.IDENTITY_MISMATCH)
        assert "0000000000" not in response.text
        row = (await world.settled(1))[0]
        assert row["outcome"] == "engine_failed"
        await _ready_again(world)


async def test_an_engine_that_loaded_other_weights_never_serves(tmp_path: Path) -> None:
    async with running(tmp_path, "--wrong-digest", limits=LimitSettings(queue_s=1.0)) as world:
        response = await world.chat("who are you?")
        assert response.status_code == 503
        async with world.http() as client:
            assert (await client.get("/readyz")).status_code == 503
        assert "other weights" in (world.replica.last_error or "")
