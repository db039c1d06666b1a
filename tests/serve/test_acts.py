"""What people change leaves one record, in the same transaction; what they were refused too,
and guesses are counted. An operation that changes something and is not in the table fails."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from freehold.catalog.adapters import stage
from freehold.core.action import CHANGING
from freehold.core.acts import Acting, Via, acting_as
from freehold.core.binding import Environment, Scope
from freehold.core.errors import Fault
from freehold.secure import age
from freehold.secure.keys import KeyRequest
from freehold.serve.operations import operations
from freehold.serve.refusals import _RECORDED
from freehold.store.backend import EVERY_TENANT
from tests.adapt.making import laid
from tests.catalog.making import peft_folder
from tests.harness import Running, running
from tests.serve.people import session
from tests.serve.test_adapters import _stock
from tests.store.making import a_job

pytestmark = pytest.mark.asyncio(loop_scope="module")

_PERMIT = "permit (principal, action, resource);"
_SUITE = {"examples": [{"ask": "2 + 2?", "expected": "4"}], "least": 1}
_ENVIRONMENT, _STAGING, _TENANT = "{tenant}/dev", "{tenant}/staging", "{tenant}"
# Each operation that changes something: path and body with which it succeeds, and what it
# leaves: the acts, the stream, and the fields of the last act.
_TABLE: dict[tuple[str, str], tuple[str, Any, list[str], str, list[str]]] = {
    ("POST", "/admin/v1/tenants"): (
        "/admin/v1/tenants", {"name": "new-co"}, ["tenant.create"], "{new}", ["isolation"],
    ),
    ("PATCH", "/admin/v1/tenants/{tenant}"): (
        "/admin/v1/tenants/other-co", {"disabled": True}, ["tenant.change"], "{other}",
        ["disabled"],
    ),
    ("DELETE", "/admin/v1/tenants/{tenant}"): (
        "/admin/v1/tenants/third-co", None, ["tenant.change", "tenant.remove"], "{third}", [],
    ),
    ("POST", "/admin/v1/keys"): (
        "/admin/v1/keys", {"name": "Mira Jones", "networks": ["10.0.0.0/8"]}, ["key.create"],
        _ENVIRONMENT, ["name", "scopes", "networks"],
    ),
    ("POST", "/admin/v1/keys/{key_id}/confirm"): (
        "/admin/v1/keys/{key}/confirm", None, ["key.confirm"], _ENVIRONMENT, [],
    ),
    ("PATCH", "/admin/v1/keys/{key_id}"): (
        "/admin/v1/keys/{key}", {"on_departure": "suspend"}, ["key.change"], _ENVIRONMENT,
        ["on_departure"],
    ),
    ("DELETE", "/admin/v1/keys/{key_id}"): (
        "/admin/v1/keys/{key}", None, ["key.revoke"], _ENVIRONMENT, ["revoked_at"],
    ),
    ("POST", "/admin/v1/keys/{key_id}/rotate"): (
        "/admin/v1/keys/{key}/rotate", {}, ["key.rotate", "key.create"], _ENVIRONMENT,
        ["name", "scopes"],
    ),
    ("POST", "/admin/v1/adapters"): (
        "/admin/v1/adapters", {"upload": "{upload}", "base": "fake-model", "name": "lora"},
        ["adapter.add"], _ENVIRONMENT, ["digest", "base"],
    ),
    ("POST", "/admin/v1/adapters/{adapter}/signatures"): (
        "/admin/v1/adapters/lora/signatures", None, ["adapter.sign"], _ENVIRONMENT, ["key"],
    ),
    ("POST", "/admin/v1/signing-keys"): (
        "/admin/v1/signing-keys", None, ["signing_key.rotate"], "installation", [],
    ),
    ("POST", "/admin/v1/signing-keys/{key}/revoke"): (
        "/admin/v1/signing-keys/{signing}/revoke", {}, ["signing_key.revoke"], "installation",
        ["since"],
    ),
    ("DELETE", "/admin/v1/adapters/{adapter}"): (
        "/admin/v1/adapters/lora", None, ["adapter.remove"], _ENVIRONMENT, [],
    ),
    ("POST", "/admin/v1/datasets"): (
        "/admin/v1/datasets",
        {"upload": "{data}", "name": "tickets", "licence": "CC0-1.0", "origin": "tests"},
        ["dataset.add"], _ENVIRONMENT, ["digest", "licence", "origin"],
    ),
    ("POST", "/admin/v1/datasets/from-feedback"): (
        "/admin/v1/datasets/from-feedback", {"name": "said", "licence": "LicenseRef-own"},
        ["feedback.collect", "dataset.add"], _ENVIRONMENT, ["digest", "licence", "origin"],
    ),
    ("DELETE", "/admin/v1/datasets/{dataset}"): (
        "/admin/v1/datasets/tickets", None, ["dataset.remove"], _ENVIRONMENT, [],
    ),
    ("POST", "/admin/v1/routes"): (
        "/admin/v1/routes", {"alias": "bot", "base": "fake-model"}, ["route.set"], _ENVIRONMENT,
        ["base", "adapter"],
    ),
    ("DELETE", "/admin/v1/routes/{alias:path}"): (
        "/admin/v1/routes/bot", None, ["route.remove"], _ENVIRONMENT, [],
    ),
    ("POST", "/admin/v1/policies"): (
        "/admin/v1/policies", {"name": "mine", "text": _PERMIT}, ["policy.set"], _TENANT, ["text"],
    ),
    ("DELETE", "/admin/v1/policies/{name}"): (
        "/admin/v1/policies/mine", None, ["policy.remove"], _TENANT, [],
    ),
    ("DELETE", "/admin/v1/subjects/{subject:path}"): (
        "/admin/v1/subjects/{key}", None, ["subject.forget"], _TENANT, [],
    ),
    ("POST", "/admin/v1/roles"): (
        "/admin/v1/roles", {"group": "ml", "role": "user"}, ["role.grant"], _ENVIRONMENT, [],
    ),
    ("DELETE", "/admin/v1/roles"): (
        "/admin/v1/roles?group=ml&role=user", None, ["role.revoke"], _ENVIRONMENT, [],
    ),
    ("DELETE", "/admin/v1/sessions/{session_id}"): (
        "/admin/v1/sessions/ses_01", None, ["session.end"], _TENANT, [],
    ),
    ("DELETE", "/admin/v1/sessions"): (
        "/admin/v1/sessions?all=true", None, ["session.cut_off"], _TENANT, [],
    ),
    ("DELETE", "/admin/v1/audit/content/{request}"): (
        "/admin/v1/audit/content/{request}", None, ["content.remove"], _ENVIRONMENT, [],
    ),
    ("POST", "/v1/feedback"): (
        "/v1/feedback", {"request_id": "{request}", "rating": "down", "correction": "y"},
        ["feedback.give"], _ENVIRONMENT, ["rating", "text"],
    ),
    ("POST", "/admin/v1/limits"): (
        "/admin/v1/limits", {"measure": "tokens", "period": "day", "amount": 10**9},
        ["limit.set"], _ENVIRONMENT, ["amount"],
    ),
    ("DELETE", "/admin/v1/limits/{limit_id}"): (
        "/admin/v1/limits/{new}", None, ["limit.remove"], _ENVIRONMENT, [],
    ),
    ("POST", "/admin/v1/backups"): (
        "/admin/v1/backups", None, ["backup.make"], "installation", [],
    ),
    ("POST", "/admin/v1/decisions"): (
        "/admin/v1/decisions",
        {"workload": {"requests_per_day": 9, "prompt": 9, "answer": 9, "models": ["gpt-5-nano"]}},
        ["decision.record"], "installation", ["option", "workload", "predicted"],
    ),
    ("POST", "/admin/v1/promotions"): (
        "/admin/v1/promotions", {"alias": "fake-model"}, ["promotion.make"], _STAGING, ["share"],
    ),
    ("POST", "/admin/v1/rollbacks"): (
        "/admin/v1/rollbacks", {"alias": "fake-model"}, ["promotion.roll_back"], _STAGING, [],
    ),
    ("POST", "/admin/v1/jobs"): (
        "/admin/v1/jobs", {"dataset": "kept", "base": "fake-model"}, ["job.start"],
        _ENVIRONMENT, ["kind", "spec"],
    ),
    ("POST", "/admin/v1/evaluations"): (
        "/admin/v1/evaluations", {"route": "fake-model", "suite": _SUITE}, ["job.start"],
        _ENVIRONMENT, ["kind", "spec"],
    ),
    ("POST", "/admin/v1/jobs/{job}/cancel"): (
        "/admin/v1/jobs/{job}/cancel", None, ["job.cancel"], _ENVIRONMENT, [],
    ),
    ("POST", "/admin/v1/jobs/{job}/resume"): (
        "/admin/v1/jobs/{job}/resume", None, ["job.resume"], _ENVIRONMENT, [],
    ),
    ("DELETE", "/admin/v1/jobs/{job}"): (
        "/admin/v1/jobs/{ended}", None, ["job.remove"], _ENVIRONMENT, [],
    ),
}  # fmt: skip


class Office:
    def __init__(self, world: Running) -> None:
        self.world = world
        self.names = {"tenant": world.tenant_id}
        wanted = KeyRequest(world.tenant_id, Environment.STAGING, "of staging", frozenset(Scope))
        _, key = world.gateway.keyring.mint(wanted)
        assert key is not None
        self.staging = key.reveal()

    async def ask(
        self, method: str, path: str, body: Any = None, key: str | None = None
    ) -> httpx2.Response:
        headers = {"authorization": f"Bearer {key or self.world.key}"}
        async with httpx2.AsyncClient(base_url=self.world.url, headers=headers) as client:
            return await client.request(method, path, json=body)

    def records(self) -> list[tuple[str, dict[str, Any]]]:
        """Of all streams, oldest first."""
        store = self.world.gateway.store
        found = [
            (stream, json.loads(record.body))
            for stream in store.audit_heads()
            for record in store.audit_trail(stream)
        ]
        return sorted(found, key=lambda each: each[1]["at_us"])

    def filled(self, text: str) -> str:
        for name, value in self.names.items():
            text = text.replace(f"{{{name}}}", value)
        return text


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def office(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Office]:
    given = [{"issuer": "https://login.example", "audiences": ["x"]}]
    folder = tmp_path_factory.mktemp("office")
    home = _stock(folder / "home")
    (folder / "recipient").write_text(age.new_identity()[1])
    backup = {"recipient": str(folder / "recipient")}
    async with running(home, identity_providers=given, backup=backup) as world:
        await world.replica.ensure_ready(20)
        made = Office(world)
        made.names["signing"] = world.gateway.adapters.signatures.current
        world.gateway.adapters.signatures.rotate()
        world.gateway.store.add_session(session(world.tenant_id), b"hash", b"token", None)
        for name in ("other", "third"):
            answer = await made.ask("POST", "/admin/v1/tenants", {"name": f"{name}-co"})
            made.names[name] = answer.json()["id"]
        kept = {"audit_content": True, "feedback": True}
        assert (await made.ask("PATCH", "/admin/v1/tenants/default", kept)).is_success
        data = {"upload": laid(home, 3), "name": "kept", "licence": "CC0-1.0", "origin": "tests"}
        assert (await made.ask("POST", "/admin/v1/datasets", data)).is_success
        job = a_job("job_01", world.tenant_id)
        world.gateway.store.add_job(world.tenant_id, job)
        made.names["job"] = job.id
        over = a_job("job_02", world.tenant_id)
        world.gateway.store.add_job(world.tenant_id, over)
        world.gateway.store.cancel_job(world.tenant_id, over.environment, over.id, 9)
        made.names["ended"] = "job_02"
        made.names["request"] = (await world.chat("x")).headers["x-freehold-request-id"]
        for text in ("y", "z"):
            said = {"request_id": (await world.chat(text)).json()["id"], "rating": "up"}
            assert (await made.ask("POST", "/v1/feedback", said)).is_success
        world.gateway.ledger.flush()
        yield made


def _changing(world: Running) -> set[tuple[str, str]]:
    found = operations(world.gateway)
    return {(each.method, each.path) for each in found if each.action in CHANGING}


async def test_the_table_names_every_operation_that_changes_something(office: Office) -> None:
    assert _changing(office.world) == set(_TABLE)


@pytest.mark.parametrize("operation", _TABLE)
async def test_a_change_leaves_its_record(office: Office, operation: tuple[str, str]) -> None:
    path, body, acts, stream, fields = _TABLE[operation]
    office.names["key"] = "key_" + office.world.mint().split("_")[2]
    if body and "request_id" in body:
        body = body | {"request_id": office.names["request"]}
    elif body and "origin" in body:
        body = body | {"upload": laid(office.world.home.path)}
    elif body and "upload" in body:
        folder = peft_folder(office.world.home.path.parent / "a", 8)
        office.names["upload"] = stage(office.world.home.path, folder)
        body = body | {"upload": office.names["upload"]}
    before = len(office.records())
    key = office.staging if stream is _STAGING else office.world.key
    answer = await office.ask(operation[0], office.filled(path), body, key)
    assert answer.is_success, answer.text
    new = office.records()[before:]
    assert [each["act"] for _, each in new] == acts
    office.names["new"] = answer.json().get("id", "")
    for found, each in new:
        assert found == office.filled(stream)
        assert each["operation"] == " ".join(operation)
        assert each["request"] == answer.headers["x-freehold-request-id"]
        assert each["principal"] == "key_" + key.split("_")[2]
        assert (each["via"], each["outcome"], each["error"]) == ("api", "ok", None)
        assert each["policies"]
        assert each["object"]
    assert new[-1][1]["fields"] == fields
    assert "Mira" not in json.dumps(new)


async def test_who_is_refused_is_recorded_with_what_refused_it(office: Office) -> None:
    key = office.world.mint(Scope.INFER)
    before = len(office.records())
    for method, path in (("POST", "/admin/v1/keys"), ("GET", "/admin/v1/audit")):
        answer = await office.ask(method, path, {"name": "more"} if method == "POST" else None, key)
        assert answer.status_code == 403
    await office.ask("DELETE", "/admin/v1/routes/absent-secret")
    found = office.records()[before:]
    assert [(each["action"], each["outcome"], each["error"]) for _, each in found] == [
        ("change_keys", "refused", "insufficient_permissions"),
        ("read_audit", "refused", "insufficient_permissions"),
        ("change_routes", "refused", "not_found"),
    ]
    assert found[0][1]["principal"] == "key_" + key.split("_")[2]
    assert "absent-secret" not in json.dumps(found)


async def test_guesses_are_counted_and_say_nothing_of_whose_they_are(office: Office) -> None:
    world = office.world
    world.gateway.refusals.keep()
    before = len(office.records())
    for number in range(50):
        await office.ask("GET", "/v1/models", key=f"fh_dev_guess_{number}")
    assert len(office.records()) == before
    world.gateway.refusals.keep()
    ((stream, found),) = office.records()[before:]
    assert stream == "installation"
    assert found["counts"] == {"invalid_api_key": 50}
    assert "127.0.0.1" not in json.dumps(found)
    world.gateway.refusals.keep()
    assert len(office.records()) == before + 1


async def test_a_flood_of_refusals_of_one_key_fills_no_disk(office: Office) -> None:
    key = office.world.mint(Scope.INFER)
    before = len(office.records())
    for _ in range(_RECORDED + 20):
        await office.ask("DELETE", "/admin/v1/keys/key_x", key=key)
    office.world.gateway.refusals.keep()
    *single, (_, counted) = office.records()[before:]
    assert len(single) == _RECORDED
    assert counted["counts"] == {"insufficient_permissions": 20}


async def test_no_record_no_change(office: Office) -> None:
    store = office.world.gateway.store
    keys, records = store.keys(office.world.tenant_id), len(office.records())
    witness = store.witness

    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    store.witness = full
    try:
        refused = await office.ask("POST", "/admin/v1/keys", {"name": "unseen"})
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "audit_unavailable"
    finally:
        store.witness = witness
    assert store.keys(office.world.tenant_id) == keys
    assert (await office.ask("POST", "/admin/v1/keys", {"name": "seen"})).status_code == 201
    assert len(office.records()) == records + 1


async def test_a_change_that_forgets_its_record_is_not_made(office: Office) -> None:
    """What a new operation would do that knew nothing of records."""
    store = office.world.gateway.store
    with acting_as(Acting("key_x", Via.API)):
        with (
            pytest.raises(Fault, match="leaves no audit record"),
            store._writing(EVERY_TENANT),
        ):
            pass
        with (
            pytest.raises(Fault, match="says nothing of itself"),
            store._changing(EVERY_TENANT) as changing,
        ):
            changing.connection.exec_driver_sql("DELETE FROM api_keys")
    assert store.keys(office.world.tenant_id)


async def test_who_operates_reads_the_acts_of_the_installation_and_nobody_else(
    office: Office,
) -> None:
    path = "/admin/v1/audit?level=installation"
    assert (await office.ask("GET", path)).status_code == 200
    for scope in (Scope.ADMIN, Scope.AUDIT):
        key = office.world.mint(scope)
        assert (await office.ask("GET", path, key=key)).status_code == 403
        mine = await office.ask("GET", "/admin/v1/audit?level=tenant", key=key)
        assert {each["stream"] for each in mine.json()["data"]} == {office.world.tenant_id}


async def test_what_is_sought_comes_in_pages(office: Office) -> None:
    await office.ask("POST", "/admin/v1/keys", {"name": "for the pages"})
    every = (await office.ask("GET", "/admin/v1/audit?limit=1000")).json()["data"]
    for sought in ("kind=act&", "", "since=2020-01-01&until=2100-01-01T00:00:00Z&"):
        seen: list[int] = []
        following = ""
        while True:
            path = f"/admin/v1/audit?{sought}limit=3{following}"
            page = (await office.ask("GET", path)).json()
            seen += [each["number"] for each in page["data"]]
            if not page["has_more"]:
                break
            following = f"&cursor={page['next']}"
        wanted = [each for each in every if "act" not in sought or '"kind":"act"' in each["body"]]
        assert sorted(seen) == [each["number"] for each in wanted], sought
    for wrong in (
        "kind=act&cursor=3",
        "cursor=3.4",
        "cursor=x",
        "kind=other",
        "since=noon",
        "until=0.5",
    ):
        assert (await office.ask("GET", f"/admin/v1/audit?{wrong}")).status_code == 400, wrong
