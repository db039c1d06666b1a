"""A retried request with an Idempotency-Key runs once."""

import asyncio
import hashlib
from pathlib import Path

import httpx2
import pytest

from tests.harness import Running, running


def _body(prompt: str, **fields: object) -> dict[str, object]:
    return {"model": "fake-model", "messages": [{"role": "user", "content": prompt}], **fields}


async def _post(world: Running, prompt: str, key: str = "k-1", **fields: object) -> httpx2.Response:
    async with world.http() as client:
        return await client.post(
            "/v1/chat/completions",
            json=_body(prompt, **fields),
            headers={"idempotency-key": key},
        )


@pytest.mark.parametrize("streams", [False, True])
async def test_the_same_request_again_gets_the_same_answer_and_is_billed_once(
    tmp_path: Path, streams: bool
) -> None:
    async with running(tmp_path) as world:
        first = await _post(world, "once", stream=streams)
        again = await _post(world, "once", stream=streams)
        assert again.content == first.content
        assert again.headers["x-freehold-replay-of"] == first.headers["x-freehold-request-id"]
        assert len((await world.seen())["seen"]) == 1
        await world.settled(1)


async def test_another_body_under_the_same_key_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await _post(world, "one thing")
        other = await _post(world, "another thing")
        assert other.status_code == 422
        assert other.json()["error"]["code"] == "idempotency_mismatch"
        await world.settled(1)


async def test_while_the_first_runs_the_second_is_told_to_wait(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.replica.ensure_ready(30)
        replies = await asyncio.gather(*(_post(world, "[[slow 0.05]] race") for _ in range(8)))
        assert sorted(reply.status_code for reply in replies) == [200] + [409] * 7
        waiting = next(reply for reply in replies if reply.status_code == 409)
        assert int(waiting.headers["retry-after"]) >= 1
        await world.settled(1)


async def test_clients_that_retry_until_they_are_answered_all_get_the_same_bytes(
    tmp_path: Path,
) -> None:
    """Twenty requests, six clients each at once, streamed and whole."""
    async with running(tmp_path) as world:
        await world.replica.ensure_ready(30)

        async def until_answered(number: int) -> bytes:
            while True:
                prompt = f"[[slow 0.01]] shared {number}"
                reply = await _post(world, prompt, f"k-{number}", stream=number % 2 == 0)
                if reply.status_code == 200:
                    return reply.content
                assert reply.status_code == 409
                await asyncio.sleep(0.05)

        answers = await asyncio.gather(*(until_answered(index % 20) for index in range(120)))
        for number in range(20):
            assert len(set(answers[number::20])) == 1
        assert len(set(answers)) == 20
        assert len((await world.seen())["seen"]) == 20
        await world.settled(20)


async def test_a_client_that_left_may_retry_and_is_answered_once(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.replica.ensure_ready(30)
        first = asyncio.create_task(_post(world, "[[slow 0.05]] left", stream=True))
        while not (await world.seen())["running"]:
            await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await world.settled(1)
        again = await _post(world, "[[slow 0.05]] left", stream=True)
        assert again.status_code == 200
        assert "x-freehold-replay-of" not in again.headers
        assert (await _post(world, "[[slow 0.05]] left", stream=True)).content == again.content
        await world.settled(2)


async def test_an_answer_longer_than_what_is_kept_runs_again(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        prompt = "[[tokens 50]][[wide 100000]] long"
        first = await _post(world, prompt)
        again = await _post(world, prompt)
        assert first.status_code == again.status_code == 200
        assert "x-freehold-replay-of" not in again.headers
        await world.settled(2)


async def test_a_request_that_failed_may_be_tried_again_under_its_key(tmp_path: Path) -> None:
    async with running(tmp_path, context=50) as world:
        assert (await _post(world, "word " * 90)).status_code == 400
        assert (await _post(world, "short")).status_code == 200


async def test_keys_of_others_do_not_share_slots(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        mine = await _post(world, "shared words")
        world.key = world.mint()
        theirs = await _post(world, "shared words")
        assert "x-freehold-replay-of" not in theirs.headers
        assert theirs.headers["x-freehold-request-id"] != mine.headers["x-freehold-request-id"]


async def test_kept_answers_cannot_be_read_in_the_database(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        reply = await _post(world, "canary question")
        answer, asked = reply.json(), reply.request.content
        word = answer["choices"][0]["message"]["content"].split()[0]
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert word.encode() not in stored
    assert hashlib.sha256(asked).hexdigest().encode() not in stored
    assert b"canary question" not in stored
