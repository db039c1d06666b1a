"""What people said of answers becomes a dataset: what was found good is learned, what was
corrected is learned as it should have been, and what cannot be used is counted with its reason."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from freehold.catalog.adapters import stage
from freehold.config import load
from freehold.core.clock import rfc3339
from freehold.core.dataset import HELD_OUT, TRAIN
from freehold.core.manifest import MANIFEST
from freehold.core.subject import SubjectKey
from freehold.operate.doctor.findings import Finding, State
from freehold.operate.doctor.installation import Installation, checked
from freehold.store.sqlite import Sqlite
from tests.adapt.making import lines
from tests.catalog.making import peft_folder
from tests.harness import DIGEST, Running, running
from tests.serve.test_adapters import _stock
from tests.serve.test_subjects import _forget, _listed

pytestmark = pytest.mark.asyncio(loop_scope="module")

_BETTER = "what should have been answered"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    folder = tmp_path_factory.mktemp("collecting")
    async with running(_stock(folder / "home")) as world:
        await world.replica.ensure_ready(20)
        ticket = stage(world.home.path, peft_folder(folder / "adapter", 8))
        adapter = {"upload": ticket, "base": "fake-model", "name": "tuned"}
        route = {"alias": "tuned", "base": "fake-model", "adapter": "tuned"}
        async with world.http() as client:
            assert (await client.post("/admin/v1/adapters", json=adapter)).is_success
            assert (await client.post("/admin/v1/routes", json=route)).is_success
        await _set(world, feedback=True, audit_content=True)
        yield world


async def _set(world: Running, **what: bool) -> None:
    async with world.http() as client:
        assert (await client.patch("/admin/v1/tenants/default", json=what)).is_success


async def _rated(world: Running, answer: httpx2.Response, *ratings: str, **said: Any) -> None:
    assert answer.is_success, answer.text
    request_id = answer.headers["x-freehold-request-id"]
    async with world.http() as client:
        for user, rating in enumerate(ratings):
            body = {"request_id": request_id, "rating": rating, "user": f"rater {user}", **said}
            assert (await client.post("/v1/feedback", json=body)).is_success


async def _made(world: Running, name: str, **wanted: Any) -> httpx2.Response:
    body = {"name": name, "licence": "LicenseRef-own", "held_out": 0, **wanted}
    async with world.http() as client:
        return await client.post("/admin/v1/datasets/from-feedback", json=body)


def _examples(world: Running, made: dict[str, Any]) -> list[dict[str, Any]]:
    folder = world.home.path / "data" / world.tenant_id / "dev" / made["digest"][7:]
    return [*lines(folder / TRAIN), *lines(folder / HELD_OUT)]


def _text(answer: httpx2.Response) -> str:
    text: str = answer.json()["choices"][0]["message"]["content"]
    return text


async def test_good_and_corrected_answers_become_examples_and_the_rest_is_counted(
    world: Running,
) -> None:
    good = await world.chat("a good one")
    streamed = await world.chat("a good stream", stream=True)
    corrected = await world.chat("a wrong one")
    await _rated(world, good, "up")
    await _rated(world, streamed, "up", "up")
    await _rated(world, corrected, "down", correction=_BETTER)
    await _rated(world, await world.chat("bad"), "down")
    await _rated(world, await world.chat("disputed"), "up", "down")
    await _rated(world, await world.chat("cut off", max_tokens=2), "up")
    forgotten = await world.chat("of somebody", user="mira")
    await _rated(world, forgotten, "up")
    assert (await _forget(world, "mira")).is_success
    async with world.http() as client:
        talk = [
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "two"},
            {"role": "user", "content": "three"},
        ]
        body = {"model": "fake-model", "messages": talk}
        await _rated(world, await client.post("/v1/chat/completions", json=body), "up")
        text = {"model": "fake-model", "prompt": "a text to go on with"}
        await _rated(world, await client.post("/v1/completions", json=text), "up")
        for stream in (False, True):
            body = {"model": "fake-model", "input": f"a response {stream}", "stream": stream}
            await _rated(world, await client.post("/v1/responses", json=body), "up")
    await _set(world, audit_content=False)
    await _rated(world, await world.chat("not kept"), "up")
    await _set(world, audit_content=True)

    answer = await _made(world, "said", alias="fake-model")
    assert answer.status_code == 201, answer.text
    made, report = answer.json(), answer.json()["report"]
    assert report["sources"] == {"thumbs up": 6, "corrected answers": 1}
    assert report["unused"] == {
        "thumb down, without a better answer": 1,
        "people disagree about it": 1,
        "the answer did not come to its end": 1,
        "somebody whom it was about is forgotten": 1,
        "what was said is not kept (`freehold tenant set --audit-content on`)": 1,
    }
    assert made["origin"].startswith("feedback on fake-model in dev, to 20")
    by_question = {each["messages"][-2]["content"]: each for each in _examples(world, made)}
    assert set(by_question) == {
        "a good one", "a good stream", "a wrong one", "three", "a text to go on with",
        "a response False", "a response True",
    }  # fmt: skip
    assert by_question["a good one"]["messages"][-1]["content"] == _text(good)
    assert by_question["a wrong one"]["messages"][-1]["content"] == _BETTER
    assert by_question["three"]["messages"][1]["weight"] == 0
    acts = [each["body"]["act"] for each in await _listed(world, kind="act")]
    assert acts[-2:] == ["feedback.collect", "dataset.add"]
    async with world.http() as client:
        shown = (await client.get("/admin/v1/datasets/said")).json()
    assert shown["report"] == report
    staged = world.home.path / "cache" / "datasets"
    assert list(staged.iterdir()) == []


async def test_corrections_and_opposite_thumbs_become_pairs(world: Running) -> None:
    since = rfc3339(world.gateway.clock.wall_us())
    wrong = await world.chat("a wrong one, again")
    await _rated(world, wrong, "down", correction=_BETTER)
    tuned = await world.chat("asked of both", model="tuned")
    bare = await world.chat("asked of both")
    await _rated(world, tuned, "up")
    await _rated(world, bare, "down")
    for rating in ("up", "down"):
        await _rated(world, await world.chat("the same answer twice"), rating)
    await _rated(world, await world.chat("asked once"), "up")
    answer = await _made(world, "pairs", kind="preference", since=since)
    assert answer.status_code == 201, answer.text
    report = answer.json()["report"]
    assert report["sources"] == {"corrected answers": 1, "thumbs up and down": 1}
    assert report["unused"] == {
        "the same answer was rated both ways": 1,
        "no answer to the same was rated the other way": 1,
    }
    pairs = {each["prompt"][0]["content"]: each for each in _examples(world, answer.json())}
    both = pairs["asked of both"]
    assert (both["chosen"][0]["content"], both["rejected"][0]["content"]) == (
        _text(tuned), _text(bare),
    )  # fmt: skip
    fixed = pairs["a wrong one, again"]
    assert (fixed["chosen"][0]["content"], fixed["rejected"][0]["content"]) == (
        _BETTER, _text(wrong),
    )  # fmt: skip


async def test_what_was_made_of_somebody_is_named_when_they_are_forgotten(
    world: Running, tmp_path: Path
) -> None:
    since = rfc3339(world.gateway.clock.wall_us())
    await _rated(world, await world.chat("I am Leo of Graz", user="leo"), "up")
    await _rated(world, await world.chat("nobody in particular"), "up")
    made = (await _made(world, "of-leo", since=since)).json()
    folder = peft_folder(tmp_path / "adapter", 4)
    manifest = {"base_digest": DIGEST, "dataset_digest": made["digest"]}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    adapter = {"upload": stage(world.home.path, folder), "base": "fake-model", "name": "learned"}
    training = {"dataset": "of-leo", "base": "fake-model"}
    async with world.http() as client:
        trained = (await client.post("/admin/v1/adapters", json=adapter)).json()
    assert [each.state for each in await _told(world)] == [State.PASS]

    forgotten = (await _forget(world, "leo")).json()
    assert forgotten["still_in"] == [
        {"kind": "dataset", "environment": "dev", "id": made["id"], "name": "of-leo@1"},
        {"kind": "adapter", "environment": "dev", "id": trained["id"], "name": "learned"},
    ]
    async with world.http() as client:
        refused = await client.post("/admin/v1/jobs", json=training)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "conflict")
    assert "holds words of somebody who was forgotten" in refused.json()["error"]["message"]
    (finding,) = await _told(world)
    assert (finding.state, finding.measured) == (State.WARNING, "2")
    assert "dataset of-leo@1 in dev, adapter learned in dev" in finding.said

    async with world.http() as client:
        assert (await client.delete("/admin/v1/datasets/of-leo@1")).is_success
        assert (await client.delete("/admin/v1/adapters/learned")).is_success
    assert [each.state for each in await _told(world)] == [State.PASS]
    assert (await _forget(world, "leo")).json()["still_in"] == []
    corrected = (await _forget(world, "rater 0")).json()["still_in"]
    assert [each["name"] for each in corrected] == ["said@1", "pairs@1"]


async def test_who_is_forgotten_while_a_dataset_is_made_is_so_in_it(world: Running) -> None:
    store, subjects = world.gateway.store, world.gateway.subjects
    ((key, _),) = subjects.keys([(world.tenant_id, "usr_ida")])
    store.forget_subject(world.tenant_id, "usr_ida", world.gateway.clock.wall_us())
    store.add_words(world.tenant_id, "sha256:of ida", [key])
    assert store.is_remembered(world.tenant_id, "sha256:of ida")
    assert not store.is_remembered("another", "sha256:of ida")
    for anew in ("", "~"):  # one comes before that key, one behind it
        store.add_subject_key(SubjectKey(anew, world.tenant_id, "usr_ida", b"wrapped", 1))
        store.add_words(world.tenant_id, f"sha256:{anew}", [key, anew])
        assert store.is_remembered(world.tenant_id, f"sha256:{anew}"), "some of them are"
        store.forget_subject(world.tenant_id, "usr_ida", world.gateway.clock.wall_us())


async def _told(world: Running) -> list[Finding]:
    async with world.http() as client:
        status = (await client.get("/admin/v1/status")).json()
    settings = load.settings(world.home.settings)
    installation = Installation(world.home, settings, Sqlite(world.home.database), status)
    return [each for each in checked(installation) if each.check == "forgotten"]


async def test_nothing_is_made_of_too_little_or_without_leave(world: Running) -> None:
    nothing = await _made(world, "none", alias="nobody's")
    assert (nothing.status_code, nothing.json()["error"]["code"]) == (400, "file_invalid")
    assert "gives no example: at least two" in nothing.json()["error"]["message"]
    bad = await _made(world, "none", kind="poem")
    assert bad.json()["error"]["code"] == "invalid_value"
    await _set(world, feedback=False)
    refused = await _made(world, "none")
    assert refused.status_code == 403
    await _set(world, feedback=True)
    async with world.http() as client:
        assert (await client.get("/admin/v1/datasets/none")).status_code == 404
    assert list((world.home.path / "cache" / "datasets").iterdir()) == []
