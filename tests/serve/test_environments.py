"""dev, staging and prod are worlds of their own: no key of one does anything in another,
whatever rights it has, and a gateway that serves one knows no key of the others."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from freehold.catalog import adapters
from freehold.catalog.adapters import stage
from freehold.core.binding import Environment, Scope
from freehold.core.ids import new_id
from freehold.core.job import JobKind
from freehold.core.limit import Limit, Measure, Period
from freehold.secure.keys import KeyRequest
from freehold.serve.operations import operations
from tests.adapt.making import laid
from tests.catalog.making import peft_folder
from tests.harness import DIGEST, Running, running
from tests.serve.test_adapters import _stock
from tests.store.making import a_gate, a_job, a_promotion, a_route

pytestmark = pytest.mark.asyncio(loop_scope="module")

_CROSSED = [(a, b) for a in Environment for b in Environment if a is not b]
_MESSAGES = [{"role": "user", "content": "x"}]
# Each operation on what belongs to an environment, as it succeeds there. `{env}` names it.
_OWNED: dict[tuple[str, str], tuple[str, Any]] = {
    ("GET", "/admin/v1/keys"): ("/admin/v1/keys", None),
    ("POST", "/admin/v1/keys"): ("/admin/v1/keys", {"name": "x"}),
    ("PATCH", "/admin/v1/keys/{key_id}"): (
        "/admin/v1/keys/{key}", {"on_departure": "suspend"},
    ),
    ("DELETE", "/admin/v1/keys/{key_id}"): ("/admin/v1/keys/{key}", None),
    ("POST", "/admin/v1/keys/{key_id}/confirm"): ("/admin/v1/keys/{key}/confirm", None),
    ("POST", "/admin/v1/keys/{key_id}/rotate"): ("/admin/v1/keys/{key}/rotate", {}),
    ("GET", "/admin/v1/adapters"): ("/admin/v1/adapters", None),
    ("POST", "/admin/v1/adapters"): (
        "/admin/v1/adapters", {"upload": "{upload}", "base": "fake-model", "name": "new"},
    ),
    ("GET", "/admin/v1/adapters/{adapter}"): ("/admin/v1/adapters/of-{env}", None),
    ("GET", "/admin/v1/adapters/{adapter}/signatures"): (
        "/admin/v1/adapters/of-{env}/signatures", None,
    ),
    ("POST", "/admin/v1/adapters/{adapter}/signatures"): (
        "/admin/v1/adapters/of-{env}/signatures", None,
    ),
    ("DELETE", "/admin/v1/adapters/{adapter}"): ("/admin/v1/adapters/spare-{env}", None),
    ("GET", "/admin/v1/lineage"): ("/admin/v1/lineage?alias=bot-{env}", None),
    ("GET", "/admin/v1/lineage/bom"): ("/admin/v1/lineage/bom?alias=bot-{env}", None),
    ("GET", "/admin/v1/datasets"): ("/admin/v1/datasets", None),
    ("POST", "/admin/v1/datasets"): (
        "/admin/v1/datasets",
        {"upload": "{data}", "name": "new", "licence": "CC0-1.0", "origin": "tests"},
    ),
    ("POST", "/admin/v1/datasets/from-feedback"): (
        "/admin/v1/datasets/from-feedback", {"name": "said", "licence": "LicenseRef-own"},
    ),
    ("GET", "/admin/v1/datasets/{dataset}"): ("/admin/v1/datasets/of-{env}", None),
    ("DELETE", "/admin/v1/datasets/{dataset}"): ("/admin/v1/datasets/spare-{env}", None),
    ("GET", "/admin/v1/routes"): ("/admin/v1/routes", None),
    ("POST", "/admin/v1/routes"): ("/admin/v1/routes", {"alias": "x", "base": "fake-model"}),
    ("GET", "/admin/v1/routes/{alias:path}"): ("/admin/v1/routes/bot-{env}", None),
    ("DELETE", "/admin/v1/routes/{alias:path}"): ("/admin/v1/routes/spare-{env}", None),
    ("GET", "/admin/v1/jobs"): ("/admin/v1/jobs", None),
    ("POST", "/admin/v1/jobs"): ("/admin/v1/jobs", {"dataset": "of-{env}", "base": "fake-model"}),
    ("POST", "/admin/v1/jobs/estimate"): (
        "/admin/v1/jobs/estimate", {"dataset": "of-{env}", "base": "fake-model"},
    ),
    ("GET", "/admin/v1/jobs/{job}"): ("/admin/v1/jobs/{job}", None),
    ("DELETE", "/admin/v1/jobs/{job}"): ("/admin/v1/jobs/{job}", None),
    ("GET", "/admin/v1/jobs/{job}/log"): ("/admin/v1/jobs/{job}/log", None),
    ("POST", "/admin/v1/jobs/{job}/cancel"): ("/admin/v1/jobs/{job}/cancel", None),
    ("POST", "/admin/v1/jobs/{job}/resume"): ("/admin/v1/jobs/{job}/resume", None),
    ("GET", "/admin/v1/promotions"): ("/admin/v1/promotions", None),
    ("GET", "/admin/v1/promotions/{promotion}"): ("/admin/v1/promotions/pro_{env}", None),
    ("POST", "/admin/v1/promotions"): (
        "/admin/v1/promotions", {"alias": "up", "source": "dev", "force": "tried elsewhere"},
    ),
    ("POST", "/admin/v1/promotions/export"): (
        "/admin/v1/promotions/export", {"download": "{download}"},
    ),
    ("POST", "/admin/v1/rollbacks"): ("/admin/v1/rollbacks", {"alias": "up"}),
    ("POST", "/admin/v1/evaluations"): (
        "/admin/v1/evaluations", {"route": "bot-{env}", "suite": {"must_answer": ["Well?"]}},
    ),
    ("GET", "/admin/v1/evaluations/{job}"): ("/admin/v1/evaluations/{job}", None),
    ("GET", "/admin/v1/gates"): ("/admin/v1/gates", None),
    ("GET", "/admin/v1/gates/{gate}"): ("/admin/v1/gates/{gate}", None),
    ("GET", "/admin/v1/limits"): ("/admin/v1/limits", None),
    ("POST", "/admin/v1/limits"): ("/admin/v1/limits", {"measure": "concurrency", "amount": 99}),
    ("DELETE", "/admin/v1/limits/{limit_id}"): ("/admin/v1/limits/{limit}", None),
    ("GET", "/admin/v1/roles"): ("/admin/v1/roles", None),
    ("POST", "/admin/v1/roles"): ("/admin/v1/roles", {"group": "g", "role": "user"}),
    ("DELETE", "/admin/v1/roles"): ("/admin/v1/roles?group=g&role=user", None),
    ("POST", "/admin/v1/policies/explain"): (
        "/admin/v1/policies/explain", {"groups": ["g"], "action": "read_keys"},
    ),
    ("GET", "/admin/v1/usage"): ("/admin/v1/usage", None),
    ("GET", "/admin/v1/requests"): ("/admin/v1/requests", None),
    ("GET", "/admin/v1/audit"): ("/admin/v1/audit", None),
    ("GET", "/admin/v1/events"): ("/admin/v1/events", None),
}  # fmt: skip
_ASKING: dict[tuple[str, str], Any] = {
    ("POST", "/v1/chat/completions"): {"messages": _MESSAGES},
    ("POST", "/v1/completions"): {"prompt": "x"},
    ("POST", "/v1/responses"): {"input": "x"},
    ("POST", "/v1/embeddings"): {"input": "x"},
    ("GET", "/v1/models/{alias:path}"): None,
}
# Where revisions come from, they come from nowhere.
_NOT_IN_DEV = {("POST", "/admin/v1/promotions"), ("POST", "/admin/v1/rollbacks")}
# What belongs to the installation, whatever the environment.
_OVERALL = {
    ("POST", "/v1/feedback"),
    ("GET", "/v1/models"), ("GET", "/openapi.json"), ("GET", "/admin/v1/status"),
    ("GET", "/admin/v1/models"), ("GET", "/admin/v1/tenants"), ("POST", "/admin/v1/tenants"),
    ("GET", "/admin/v1/tenants/{tenant}"), ("PATCH", "/admin/v1/tenants/{tenant}"),
    ("DELETE", "/admin/v1/tenants/{tenant}"), ("GET", "/admin/v1/policies"),
    ("POST", "/admin/v1/policies"), ("DELETE", "/admin/v1/policies/{name}"),
    ("DELETE", "/admin/v1/subjects/{subject:path}"),
    ("GET", "/admin/v1/audit/content/{request}"),
    ("DELETE", "/admin/v1/audit/content/{request}"),
    ("GET", "/admin/v1/prices"),
    ("GET", "/admin/v1/whoami"), ("GET", "/admin/v1/sessions"), ("DELETE", "/admin/v1/sessions"),
    ("DELETE", "/admin/v1/sessions/{session_id}"),
    ("GET", "/admin/v1/backups"), ("POST", "/admin/v1/backups"),
    ("POST", "/admin/v1/fit"), ("POST", "/admin/v1/decide"),
    ("GET", "/admin/v1/decisions"), ("POST", "/admin/v1/decisions"),
    ("GET", "/admin/v1/decisions/{decision}"), ("POST", "/admin/v1/decisions/{decision}/check"),
    ("GET", "/admin/v1/decisions/{decision}/deployment"),
    ("GET", "/admin/v1/signing-keys"), ("POST", "/admin/v1/signing-keys"),
    ("POST", "/admin/v1/signing-keys/{key}/revoke"),
}  # fmt: skip
# For whom no key is asked: a login of somebody elsewhere, and the end of a session.
_PROVEN = {("POST", "/admin/v1/sessions"), ("DELETE", "/admin/v1/sessions/current")}


class Worlds:
    def __init__(self, world: Running) -> None:
        self.world = world
        self.keys = {each: self._mint(each) for each in Environment}

    def _mint(self, environment: Environment, *scopes: Scope) -> str:
        wanted = KeyRequest(
            self.world.tenant_id, environment, f"key of {environment}", frozenset(scopes or Scope)
        )
        _, key = self.world.gateway.keyring.mint(wanted)
        assert key is not None
        return key.reveal()

    async def ask(
        self, key: str, method: str, path: str, body: Any = None, **query: str
    ) -> httpx2.Response:
        headers = {"authorization": f"Bearer {key}"}
        async with httpx2.AsyncClient(
            base_url=self.world.url, headers=headers, verify=False
        ) as client:
            return await client.request(method, path, json=body, params=query or None)

    async def owned(
        self, key: str, operation: tuple[str, str], environment: Environment
    ) -> httpx2.Response:
        """Asks for what is there, by naming the environment that it belongs to."""
        path, body = _OWNED[operation]
        spare = "key_" + self._mint(environment, Scope.INFER).split("_")[2]
        path = path.replace("{env}", environment).replace("{key}", spare)
        if "{limit}" in path:
            path = path.replace("{limit}", self._limit(environment))
        if "{job}" in path:
            kind = JobKind.EVAL if "evaluations" in path else JobKind.TUNE
            is_over = "resume" in path or operation[0] == "DELETE"
            job = self._job(environment, kind, is_over=is_over)
            path = path.replace("{job}", job)
        if "{gate}" in path:
            gate = a_gate(new_id("gat"), self.world.tenant_id, environment=environment)
            self.world.gateway.store.add_gate(self.world.tenant_id, gate)
            path = path.replace("{gate}", gate.id)
        if body is None:
            mark = "&" if "?" in path else "?"
            return await self.ask(key, operation[0], f"{path}{mark}environment={environment}")
        if "route" in body:
            body = body | {"route": f"bot-{environment}"}
        elif "dataset" in body:
            body = body | {"dataset": f"of-{environment}"}
        elif "download" in body:
            ticket = adapters.laid(self.world.home.path, {})
            body = {"alias": f"out-{environment}", "download": ticket}
        elif "origin" in body:
            body = body | {"upload": laid(self.world.home.path), "name": spare}
        elif "upload" in body:
            folder = peft_folder(self.world.home.path.parent / spare, 3 + hash(spare) % 1000)
            body = body | {"upload": stage(self.world.home.path, folder), "name": spare}
        return await self.ask(key, operation[0], path, {**body, "environment": environment})

    def _limit(self, environment: Environment) -> str:
        """One that hinders nobody."""
        most = Limit(
            new_id("lim"), self.world.tenant_id, environment, None, Measure.TOKENS, Period.TOTAL,
            10**15, True, 1,
        )  # fmt: skip
        return self.world.gateway.store.set_limit(self.world.tenant_id, most).id

    def _job(self, environment: Environment, kind: JobKind, *, is_over: bool) -> str:
        store, tenant_id = self.world.gateway.store, self.world.tenant_id
        job = a_job(new_id("job"), tenant_id, environment=environment, kind=kind)
        store.add_job(tenant_id, job)
        if is_over:
            store.cancel_job(tenant_id, environment, job.id, 9)
        return job.id

    async def furnish(self, environment: Environment) -> None:
        key = self.keys[environment]
        for name, seed in ((f"of-{environment}", 1), (f"spare-{environment}", 2)):
            ticket = stage(
                self.world.home.path, peft_folder(self.world.home.path.parent / name, seed)
            )
            body = {"upload": ticket, "base": "fake-model", "name": name}
            added = await self.ask(key, "POST", "/admin/v1/adapters", body)
            assert added.status_code == 201
            await self._gated(environment, name, added.json()["digest"])
        for name, seed in ((f"of-{environment}", 1), (f"spare-{environment}", 2)):
            ticket = laid(self.world.home.path, seed)
            body = {"upload": ticket, "name": name, "licence": "CC0-1.0", "origin": "tests"}
            assert (await self.ask(key, "POST", "/admin/v1/datasets", body)).status_code == 201
        for alias in (f"bot-{environment}", f"spare-{environment}"):
            body = {"alias": alias, "base": "fake-model"}
            assert (await self.ask(key, "POST", "/admin/v1/routes", body)).status_code == 200
        if environment is Environment.DEV:
            body = {"alias": "up", "base": "fake-model"}
            assert (await self.ask(key, "POST", "/admin/v1/routes", body)).status_code == 200
        tenant_id, alias = self.world.tenant_id, f"kept-{environment}"
        kept = a_promotion(f"pro_{environment}", tenant_id, environment=environment, alias=alias)
        self.world.gateway.store.promote(tenant_id, kept, a_route(tenant_id, alias, environment))

        for text in ("one", "two"):
            body = {"model": f"bot-{environment}", "messages": [{"role": "user", "content": text}]}
            asked = await self.ask(key, "POST", "/v1/chat/completions", body)
            said = {"request_id": asked.json()["id"], "rating": "up"}
            assert (await self.ask(key, "POST", "/v1/feedback", said)).status_code == 200

    async def _gated(self, environment: Environment, name: str, digest: str) -> None:
        """One that may leave."""
        if name.startswith("spare"):
            return
        gate = a_gate(
            new_id("gat"), self.world.tenant_id, environment=environment, base_digest=DIGEST,
            adapter_digest=digest,
        )  # fmt: skip
        self.world.gateway.store.add_gate(self.world.tenant_id, gate)
        body = {
            "alias": f"out-{environment}", "base": "fake-model", "adapter": name,
            "accept_licence": "made for this test",
        }  # fmt: skip
        key = self.keys[environment]
        assert (await self.ask(key, "POST", "/admin/v1/routes", body)).status_code == 200

    def everything(self) -> str:
        store, tenant_id = self.world.gateway.store, self.world.tenant_id
        return repr([
            (
                store.routes(tenant_id, each), store.adapters(tenant_id, each, 100),
                store.datasets(tenant_id, each, 100),
            )
            for each in Environment
        ])  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worlds(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Worlds]:
    given = [{"issuer": "https://login.example", "audiences": ["x"]}]
    home = _stock(tmp_path_factory.mktemp("worlds") / "home")
    async with running(home, identity_providers=given) as world:
        await world.replica.ensure_ready(20)
        found = Worlds(world)
        world.gateway.store.set_feedback(world.tenant_id, True)
        world.gateway.store.set_audit_content(world.tenant_id, True)
        await world.gateway.access.refresh()
        for environment in Environment:
            await found.furnish(environment)
        yield found


async def test_every_operation_is_in_one_of_the_tables(worlds: Worlds) -> None:
    there = {(each.method, each.path) for each in operations(worlds.world.gateway)}
    assert there == _OWNED.keys() | _ASKING.keys() | _OVERALL | _PROVEN


@pytest.mark.parametrize("operation", _OWNED)
async def test_a_key_of_one_environment_is_refused_in_another(
    worlds: Worlds, operation: tuple[str, str]
) -> None:
    before = worlds.everything()
    for mine, theirs in _CROSSED:
        refused = await worlds.owned(worlds.keys[mine], operation, theirs)
        assert refused.status_code == 403, refused.text
        assert refused.json()["error"]["code"] == "insufficient_permissions"
    assert worlds.everything() == before


@pytest.mark.parametrize("operation", _ASKING)
async def test_an_alias_of_one_environment_is_not_there_in_another(
    worlds: Worlds, operation: tuple[str, str]
) -> None:
    method, path = operation
    for mine, theirs in _CROSSED:
        alias, body = f"bot-{theirs}", _ASKING[operation]
        body = None if body is None else {**body, "model": alias}
        there = path.replace("{alias:path}", alias)
        answer = await worlds.ask(worlds.keys[mine], method, there, body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("environment", Environment)
async def test_in_its_own_environment_a_key_does_all_of_it(
    worlds: Worlds, environment: Environment
) -> None:
    """So that a refusal above is one of the environment."""
    key = worlds.keys[environment]
    for operation in _OWNED:
        answer = await worlds.owned(key, operation, environment)
        if environment is Environment.DEV and operation in _NOT_IN_DEV:
            assert answer.status_code == 409, answer.text
            continue
        assert answer.is_success, (operation, answer.text)
        for other in set(Environment) - {environment}:
            assert f"-{other}" not in answer.text
            assert f"key of {other}" not in answer.text
    for alias in (f"bot-{environment}",):
        body = {"model": alias, "messages": _MESSAGES}
        answer = await worlds.ask(key, "POST", "/v1/chat/completions", body)
        assert answer.status_code == 200, answer.text
    listed = (await worlds.ask(key, "GET", "/v1/models")).json()["data"]
    assert f"bot-{environment}" in {model["id"] for model in listed}
    worlds.world.gateway.ledger.flush()
    records = (await worlds.ask(key, "GET", "/admin/v1/requests")).json()["data"]
    assert {record["environment"] for record in records} == {environment}
    usage = (await worlds.ask(key, "GET", "/admin/v1/usage")).json()["data"]
    assert {row["alias"] for row in usage} == {f"bot-{environment}"}


async def test_a_gateway_serves_the_environments_that_it_is_told_to(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with running(_stock(home), environments=["prod"]) as world:
        worlds = Worlds(world)
        for method, path in [*_OWNED, *_ASKING, *_OVERALL]:
            for environment in (Environment.DEV, Environment.STAGING):
                answer = await worlds.ask(worlds.keys[environment], method, path)
                assert answer.status_code == 403, (method, path)
                assert answer.json()["error"]["code"] == "environment_not_served"
        prod = worlds.keys[Environment.PROD]
        assert (await worlds.ask(prod, "GET", "/v1/models")).status_code == 200
        owner = world.gateway.keyring.open_locally(world.tenant_id).reveal()
        assert (await worlds.ask(owner, "GET", "/admin/v1/keys")).status_code == 200
        dev = await worlds.ask(owner, "GET", "/admin/v1/keys", environment="dev")
        assert dev.json()["error"]["code"] == "environment_not_served"


async def test_the_owner_of_the_home_administers_all_environments_and_uses_no_model(
    worlds: Worlds,
) -> None:
    owner = worlds.world.gateway.keyring.open_locally(worlds.world.tenant_id).reveal()
    for environment in Environment:
        answer = await worlds.ask(owner, "GET", "/admin/v1/routes", environment=environment)
        assert f"bot-{environment}" in answer.text
        body = {"name": "x", "environment": environment}
        made = await worlds.ask(owner, "POST", "/admin/v1/keys", body)
        assert made.json()["environment"] == environment
    body = {"model": "bot-dev", "messages": _MESSAGES}
    asked = await worlds.ask(owner, "POST", "/v1/chat/completions", body)
    assert asked.json()["error"]["code"] == "insufficient_permissions"
    other = worlds.world.gateway.keyring.open_locally(worlds.world.tenant_id).reveal()
    assert (await worlds.ask(owner, "GET", "/admin/v1/keys")).status_code == 401
    assert (await worlds.ask(other, "GET", "/admin/v1/keys")).status_code == 200
