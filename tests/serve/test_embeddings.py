"""Embeddings through the gateway: what is too long, what the engine must prove."""

from pathlib import Path

from freehold.core.errors import Code
from freehold.core.model import Task
from tests.harness import running


async def test_embeddings_of_other_weights_are_discarded(tmp_path: Path) -> None:
    async with running(tmp_path, task=Task.EMBEDDINGS) as world, world.http() as client:
        body = {"model": "fake-model", "input": ["a", "[[garbage wrong-id]]"]}
        response = await client.post("/v1/embeddings", json=body)
        assert response.status_code == 502
        assert response.json()["error"]["code"] == Code.IDENTITY_MISMATCH
        assert "embedding" not in response.text
        assert (await world.settled(1))[0]["outcome"] == "engine_failed"


async def test_an_input_that_is_too_long_is_named_before_the_engine_has_it(tmp_path: Path) -> None:
    async with running(tmp_path, task=Task.EMBEDDINGS, context=64) as world, world.http() as client:
        for place, given in (("input[1]", ["short", "word " * 61]), ("input", "word " * 61)):
            body = {"model": "fake-model", "input": given}
            response = await client.post("/v1/embeddings", json=body)
            assert response.status_code == 400
            error = response.json()["error"]
            assert (error["code"], error["param"]) == ("context_length_exceeded", place)
        fits = {"model": "fake-model", "input": ["short", "word " * 60]}
        assert (await client.post("/v1/embeddings", json=fits)).status_code == 200
        rows = await world.settled(3)
        assert [row["outcome"] for row in rows] == ["ok", "refused", "refused"]
        assert [row["tokens_in"] for row in rows[1:]] == [0, 0]
        assert world.gateway.pools["fake-model"].status().replicas[0].restarts == 0


async def test_an_engine_that_dies_of_an_embedding_is_back_for_the_next(tmp_path: Path) -> None:
    async with running(tmp_path, task=Task.EMBEDDINGS) as world, world.http() as client:
        body = {"model": "fake-model", "input": "[[crash 1]]"}
        response = await client.post("/v1/embeddings", json=body)
        assert response.status_code in (502, 503)
        await world.replica.ensure_ready(20)
        fine = {"model": "fake-model", "input": "fine"}
        assert (await client.post("/v1/embeddings", json=fine)).status_code == 200
        rows = await world.settled(2)
        assert [row["outcome"] for row in rows] == ["ok", "engine_failed"]
