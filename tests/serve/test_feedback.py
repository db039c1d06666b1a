"""What people say of answers to them: one says it last, nobody says it of another's, and no file
holds what they wrote."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import orjson
import pytest
import pytest_asyncio

from freehold.core.binding import Environment, Scope
from freehold.core.feedback import Feedback, Rating
from freehold.secure.keys import KeyRequest
from tests.harness import Running, running
from tests.serve.test_subjects import _files, _forget, _is_whole

pytestmark = pytest.mark.asyncio(loop_scope="module")

_CANARY = "a better answer that nobody may find on the disk"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    async with running(tmp_path_factory.mktemp("feedback")) as world:
        await world.replica.ensure_ready(20)
        await _switch(world, True)
        yield world


async def _switch(world: Running, is_taken: bool) -> None:
    async with world.http() as client:
        changed = await client.patch("/admin/v1/tenants/default", json={"feedback": is_taken})
    assert changed.json()["feedback"] is is_taken


async def _say(world: Running, key: str = "", **said: Any) -> httpx2.Response:
    headers = {"authorization": f"Bearer {key or world.key}"}
    async with httpx2.AsyncClient(base_url=world.url, headers=headers) as client:
        return await client.post("/v1/feedback", json=said)


def _of(world: Running, request_id: str) -> list[Feedback]:
    found = world.gateway.store.feedback(world.tenant_id, Environment.DEV, 1000)
    return [each for each in found if each.request_id == request_id]


def _read(world: Running, said: Feedback) -> Any:
    assert said.sealed is not None
    text = world.gateway.subjects.read_content(said.data_keys, said.sealed, said.id)
    return None if text is None else orjson.loads(text)


async def test_none_is_taken_until_a_tenant_says_so(world: Running) -> None:
    asked = await world.chat("hello")
    for is_taken, status in ((False, 403), (True, 200), (False, 403)):
        await _switch(world, is_taken)
        answer = await _say(world, request_id=asked.json()["id"], rating="up")
        assert answer.status_code == status, answer.text
    refused = await _say(world, request_id=asked.json()["id"], rating="up")
    assert "freehold tenant set" in refused.json()["error"]["message"]
    await _switch(world, True)


async def test_the_last_that_somebody_says_counts_and_another_person_beside_it(
    world: Running,
) -> None:
    asked = await world.chat("hello")
    header, id = asked.headers["x-freehold-request-id"], asked.json()["id"]
    for named, rating in ((id, "up"), (header, -1), (id, "down")):
        answer = await _say(world, request_id=named, rating=rating, correction=f"by {named}")
        assert answer.status_code == 200, answer.text
        assert answer.json()["request_id"] == header
    (mine,) = _of(world, header)
    assert (mine.rating, mine.alias) == (Rating.DOWN, "fake-model")
    assert _read(world, mine) == {"correction": f"by {id}", "comment": None}
    for user in ("mira", "mira", "leo"):
        assert (await _say(world, request_id=id, rating=1, user=user)).is_success
    assert [each.rating for each in _of(world, header)] == [Rating.DOWN, Rating.UP, Rating.UP]
    again = await _say(world, request_id=id, rating="up")
    assert again.json()["written"] is False
    assert [each.sealed for each in _of(world, header)] == [None] * 3


async def test_the_ids_of_every_endpoint_are_known_and_of_streams_too(world: Running) -> None:
    async with world.http() as client:
        made = [
            await client.post("/v1/completions", json={"model": "fake-model", "prompt": "x"}),
            await client.post("/v1/responses", json={"model": "fake-model", "input": "x"}),
        ]
    streamed = await world.chat("hello", stream=True)
    first = orjson.loads(streamed.text.split("data: ")[1].split("\n")[0])["id"]
    for named in (*(each.json()["id"] for each in made), first):
        answer = await _say(world, request_id=named, rating="down")
        assert answer.status_code == 200, (named, answer.text)


async def test_what_is_not_ones_own_looks_as_if_it_were_not_there(world: Running) -> None:
    asked = await world.chat("hello")
    named = asked.headers["x-freehold-request-id"]
    other = world.mint()
    prod = KeyRequest(world.tenant_id, Environment.PROD, "prod", frozenset({Scope.INFER}))
    _, elsewhere = world.gateway.keyring.mint(prod)
    assert elsewhere is not None
    absent = "req_" + "0" * 26
    for key in (other, elsewhere.reveal()):
        theirs = await _say(world, key, request_id=named, rating="up")
        nobodys = await _say(world, key, request_id=absent, rating="up")
        assert theirs.status_code == nobodys.status_code == 404
        assert theirs.text.replace(named, "") == nobodys.text.replace(absent, "")
    assert _of(world, named) == []


async def test_a_key_that_replaces_another_speaks_of_what_that_one_asked(world: Running) -> None:
    asked = await world.chat("hello")
    async with world.http() as client:
        mine = "key_" + world.key.split("_")[2]
        rotated = await client.post(f"/admin/v1/keys/{mine}/rotate", json={"grace_s": 600})
        new = rotated.json()["key"]
    for key in (world.key, new):
        said = await _say(world, key, request_id=asked.json()["id"], rating="up")
        assert said.status_code == 200, said.text
    assert len(_of(world, asked.headers["x-freehold-request-id"])) == 1


async def test_it_takes_the_right_to_use_models_and_a_policy_can_forbid_it(world: Running) -> None:
    asked = await world.chat("hello")
    said = {"request_id": asked.json()["id"], "rating": "up"}
    refused = await _say(world, world.mint(Scope.ADMIN), **said)
    assert (refused.status_code, refused.json()["error"]["code"]) == (
        403, "insufficient_permissions",
    )  # fmt: skip
    text = 'forbid (principal, action == Freehold::Action::"feedback", resource);'
    async with world.http() as client:
        put = await client.post("/admin/v1/policies", json={"name": "mute", "text": text})
        assert put.is_success, put.text
        assert (await _say(world, **said)).status_code == 403
        assert (await client.delete("/admin/v1/policies/mute")).is_success
    assert (await _say(world, **said)).status_code == 200


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"request_id": "req_x"}, "invalid_value"),
        ({"request_id": "fbk_" + "0" * 26}, "invalid_value"),
        ({"rating": "sideways"}, "invalid_value"),
        ({"rating": True}, "invalid_value"),
        ({"rating": 5}, "invalid_value"),
        ({"correction": ""}, "invalid_value"),
        ({"correction": "x" * 32_769}, "invalid_value"),
        ({"comment": 7}, "invalid_value"),
        ({"user": "x" * 257}, "invalid_value"),
        ({"correction": "x" * 70_000}, "request_too_large"),
        ({"score": 1}, "unknown_parameter"),
    ],
)
async def test_what_is_no_feedback_is_refused_by_name(
    world: Running, said: dict[str, Any], code: str
) -> None:
    whole = {"request_id": "req_" + "0" * 26, "rating": "up"} | said
    answer = await _say(world, **whole)
    assert answer.json()["error"]["code"] == code, answer.text


async def test_what_was_written_is_in_no_file_and_goes_with_those_it_is_about(
    world: Running,
) -> None:
    """Of the person who wrote it all of it goes, of the one whom the request was for the text."""
    asked = await world.chat("hello", user="mira")
    named = asked.headers["x-freehold-request-id"]
    for user in ("leo", "ada"):
        said = {"rating": "down", "correction": _CANARY, "comment": f"{_CANARY} {user}"}
        assert (await _say(world, request_id=named, user=user, **said)).is_success
    for path, content in _files(world.home.path).items():
        assert _CANARY.encode() not in content, path
    leo, ada = _of(world, named)
    assert _read(world, leo)["comment"].endswith("leo")
    assert (await _forget(world, "leo")).is_success
    assert _of(world, named) == [ada]
    assert _read(world, ada)["correction"] == _CANARY
    assert (await _forget(world, "mira")).is_success
    assert _read(world, ada) is None
    _is_whole(world)


async def test_a_removed_content_takes_along_what_was_written_of_it(world: Running) -> None:
    async with world.http() as client:
        await client.patch("/admin/v1/tenants/default", json={"audit_content": True})
        asked = await world.chat("hello")
        named = asked.headers["x-freehold-request-id"]
        assert (await _say(world, request_id=named, rating="up", comment="fine")).is_success
        assert (await client.delete(f"/admin/v1/audit/content/{named}")).is_success
        await client.patch("/admin/v1/tenants/default", json={"audit_content": False})
    (left,) = _of(world, named)
    assert (left.rating, left.sealed) == (Rating.UP, None)


async def test_thumbs_are_counted_by_adapter(world: Running) -> None:
    store, tenant_id = world.gateway.store, world.tenant_id
    since_us = world.gateway.clock.wall_us()
    for rating in ("up", "up", "down"):
        asked = await world.chat("hello")
        assert (await _say(world, request_id=asked.json()["id"], rating=rating)).is_success
    thumbs = store.thumbs(tenant_id, Environment.DEV, "fake-model", since_us)
    assert thumbs == {None: (2, 1)}
    async with world.http() as client:
        (shown,) = (await client.get("/admin/v1/usage")).json()["thumbs"]
    assert (shown["alias"], shown["adapter_digest"]) == ("fake-model", None)
    assert (shown["up"] >= 2, shown["down"] >= 1) == (True, True)
    every = store.every_thumb(tenant_id, Environment.DEV, since_us)
    assert every == {("fake-model", None): (2, 1)}
    assert store.thumbs(tenant_id, Environment.DEV, "other", 0) == {}
    assert store.thumbs(tenant_id, Environment.PROD, "fake-model", 0) == {}
    later = world.gateway.clock.wall_us() + 1
    assert store.thumbs(tenant_id, Environment.DEV, "fake-model", later) == {}
