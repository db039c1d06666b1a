"""Not yours is not there: for every operation and every kind of thing that it can name, the
answer for another tenant's is, byte for byte, that for one which nobody has.

The table must name every operation, so that a new one cannot come without its row.
"""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from freehold.catalog.adapters import stage
from freehold.core.binding import Environment, Role, Scope
from freehold.core.limit import Limit, Measure, Period
from freehold.core.policy import Policy
from freehold.core.role import RoleGrant
from freehold.core.session import Session, SessionKind
from freehold.secure.keys import KeyRequest
from freehold.serve.operations import operations
from tests.catalog.making import peft_folder
from tests.harness import Running, running
from tests.serve.test_adapters import _stock
from tests.store.making import a_dataset, a_decision, a_gate, a_job, a_promotion, a_route

pytestmark = pytest.mark.asyncio(loop_scope="module")

_THEIRS = "ten_theirs"
Request = tuple[str, Any]  # path and query, body
Probe = Callable[[str], Request]

_MESSAGES = [{"role": "user", "content": "x"}]
# What each operation can be asked about, by the kind of thing; {} is its name. `tenant` is
# named in each that takes one.
_OWNED = "?tenant={}"
_SUITE = {"must_answer": ["How are you?"]}
_ISSUER = "https://login.example"
_PERMIT = "permit (principal, action, resource);"
_TABLE: dict[tuple[str, str], dict[str, Request]] = {
    ("POST", "/v1/chat/completions"): {
        "alias": ("/v1/chat/completions", {"model": "{}", "messages": _MESSAGES})
    },
    ("POST", "/v1/completions"): {
        "alias": ("/v1/completions", {"model": "{}", "prompt": "x"})
    },
    ("POST", "/v1/embeddings"): {"alias": ("/v1/embeddings", {"model": "{}", "input": "x"})},
    ("POST", "/v1/responses"): {"alias": ("/v1/responses", {"model": "{}", "input": "x"})},
    ("POST", "/v1/feedback"): {
        "request": ("/v1/feedback", {"request_id": "{}", "rating": "up"})
    },
    ("GET", "/v1/models"): {},
    ("GET", "/v1/models/{alias:path}"): {"alias": ("/v1/models/{}", None)},
    ("GET", "/openapi.json"): {},
    ("GET", "/admin/v1/status"): {},
    ("GET", "/admin/v1/models"): {},
    ("GET", "/admin/v1/backups"): {},
    ("POST", "/admin/v1/backups"): {},
    ("POST", "/admin/v1/decide"): {},
    ("POST", "/admin/v1/fit"): {},
    ("GET", "/admin/v1/decisions"): {
        "tenant": ("/admin/v1/decisions" + _OWNED, None),
        "tenant id": ("/admin/v1/decisions" + _OWNED, None),
    },
    ("POST", "/admin/v1/decisions"): {
        "tenant": ("/admin/v1/decisions", {"workload": {}, "tenant": "{}"}),
        "decision": ("/admin/v1/decisions", {"workload": {}, "supersede": "{}"}),
    },
    ("GET", "/admin/v1/decisions/{decision}"): {
        "decision": ("/admin/v1/decisions/{}", None),
        "tenant": ("/admin/v1/decisions/dec_x" + _OWNED, None),
    },
    ("GET", "/admin/v1/decisions/{decision}/deployment"): {
        "decision": ("/admin/v1/decisions/{}/deployment", None),
        "tenant": ("/admin/v1/decisions/dec_x/deployment" + _OWNED, None),
    },
    ("POST", "/admin/v1/decisions/{decision}/check"): {
        "decision": ("/admin/v1/decisions/{}/check", None),
        "tenant": ("/admin/v1/decisions/dec_x/check" + _OWNED, None),
    },
    ("GET", "/admin/v1/jobs"): {
        "tenant": ("/admin/v1/jobs" + _OWNED, None), "tenant id": ("/admin/v1/jobs" + _OWNED, None),
    },
    ("POST", "/admin/v1/jobs"): {
        "dataset": ("/admin/v1/jobs", {"dataset": "{}", "base": "fake-model"}),
        "tenant": ("/admin/v1/jobs", {"dataset": "x", "base": "fake-model", "tenant": "{}"}),
    },
    ("POST", "/admin/v1/jobs/estimate"): {
        "dataset": ("/admin/v1/jobs/estimate", {"dataset": "{}", "base": "fake-model"}),
        "tenant": (
            "/admin/v1/jobs/estimate", {"dataset": "x", "base": "fake-model", "tenant": "{}"}
        ),
    },
    ("GET", "/admin/v1/jobs/{job}"): {
        "job": ("/admin/v1/jobs/{}", None), "tenant": ("/admin/v1/jobs/job_x" + _OWNED, None),
    },
    ("DELETE", "/admin/v1/jobs/{job}"): {
        "job": ("/admin/v1/jobs/{}", None), "tenant": ("/admin/v1/jobs/job_x" + _OWNED, None),
    },
    ("GET", "/admin/v1/jobs/{job}/log"): {
        "job": ("/admin/v1/jobs/{}/log", None),
        "tenant": ("/admin/v1/jobs/job_x/log" + _OWNED, None),
    },
    ("POST", "/admin/v1/jobs/{job}/cancel"): {
        "job": ("/admin/v1/jobs/{}/cancel", None),
        "tenant": ("/admin/v1/jobs/job_x/cancel" + _OWNED, None),
    },
    ("POST", "/admin/v1/jobs/{job}/resume"): {
        "job": ("/admin/v1/jobs/{}/resume", None),
        "tenant": ("/admin/v1/jobs/job_x/resume" + _OWNED, None),
    },
    ("GET", "/admin/v1/promotions"): {
        "tenant": ("/admin/v1/promotions" + _OWNED, None),
        "tenant id": ("/admin/v1/promotions" + _OWNED, None),
    },
    ("GET", "/admin/v1/promotions/{promotion}"): {
        "promotion": ("/admin/v1/promotions/{}", None),
        "tenant": ("/admin/v1/promotions/pro_x" + _OWNED, None),
    },
    ("POST", "/admin/v1/promotions"): {
        "alias": ("/admin/v1/promotions", {"alias": "{}", "environment": "staging"}),
        "tenant": (
            "/admin/v1/promotions", {"alias": "x", "environment": "staging", "tenant": "{}"}
        ),
    },
    ("POST", "/admin/v1/promotions/export"): {
        "alias": ("/admin/v1/promotions/export", {"alias": "{}", "download": "0" * 32}),
        "tenant": (
            "/admin/v1/promotions/export", {"alias": "x", "download": "0" * 32, "tenant": "{}"}
        ),
    },
    ("POST", "/admin/v1/rollbacks"): {
        "alias": ("/admin/v1/rollbacks", {"alias": "{}"}),
        "tenant": ("/admin/v1/rollbacks", {"alias": "x", "tenant": "{}"}),
    },
    ("POST", "/admin/v1/evaluations"): {
        "alias": ("/admin/v1/evaluations", {"route": "{}", "suite": _SUITE}),
        "dataset": ("/admin/v1/evaluations", {"route": "own-bot", "dataset": "{}"}),
        "tenant": ("/admin/v1/evaluations", {"route": "x", "suite": _SUITE, "tenant": "{}"}),
    },
    ("GET", "/admin/v1/evaluations/{job}"): {
        "job": ("/admin/v1/evaluations/{}", None),
        "tenant": ("/admin/v1/evaluations/job_x" + _OWNED, None),
    },
    ("GET", "/admin/v1/gates"): {
        "digest": ("/admin/v1/gates?adapter={}", None),
        "tenant": ("/admin/v1/gates" + _OWNED, None),
    },
    ("GET", "/admin/v1/gates/{gate}"): {
        "gate": ("/admin/v1/gates/{}", None), "tenant": ("/admin/v1/gates/gat_x" + _OWNED, None),
    },
    ("GET", "/admin/v1/tenants"): {},
    ("POST", "/admin/v1/tenants"): {"tenant": ("/admin/v1/tenants", {"name": "{}"})},
    ("GET", "/admin/v1/tenants/{tenant}"): {
        "tenant": ("/admin/v1/tenants/{}", None), "tenant id": ("/admin/v1/tenants/{}", None),
    },
    ("PATCH", "/admin/v1/tenants/{tenant}"): {
        "tenant": ("/admin/v1/tenants/{}", {"disabled": True}),
        "tenant id": ("/admin/v1/tenants/{}", {"isolation": "weights"}),
    },
    ("DELETE", "/admin/v1/tenants/{tenant}"): {
        "tenant": ("/admin/v1/tenants/{}?force=true", None),
        "tenant id": ("/admin/v1/tenants/{}", None),
    },
    ("GET", "/admin/v1/keys"): {
        "tenant": ("/admin/v1/keys" + _OWNED, None),
        "tenant id": ("/admin/v1/keys" + _OWNED, None),
    },
    ("POST", "/admin/v1/keys"): {
        "tenant": ("/admin/v1/keys", {"name": "x", "tenant": "{}"}),
        "tenant id": ("/admin/v1/keys", {"name": "x", "tenant": "{}"}),
        "key hash": ("/admin/v1/keys", {"name": "x", "sha256": "{}"}),
    },
    ("PATCH", "/admin/v1/keys/{key_id}"): {
        "key": ("/admin/v1/keys/{}", {"on_departure": "suspend"}),
        "tenant": ("/admin/v1/keys/key_x", {"on_departure": "suspend", "tenant": "{}"}),
    },
    ("DELETE", "/admin/v1/keys/{key_id}"): {
        "key": ("/admin/v1/keys/{}", None),
        "tenant": ("/admin/v1/keys/key_x" + _OWNED, None),
    },
    ("POST", "/admin/v1/keys/{key_id}/confirm"): {
        "key": ("/admin/v1/keys/{}/confirm", None),
        "tenant": ("/admin/v1/keys/key_x/confirm" + _OWNED, None),
    },
    ("POST", "/admin/v1/keys/{key_id}/rotate"): {
        "key": ("/admin/v1/keys/{}/rotate", {}),
        "tenant": ("/admin/v1/keys/key_x/rotate", {"tenant": "{}"}),
    },
    ("GET", "/admin/v1/adapters"): {
        "adapter": ("/admin/v1/adapters?after={}", None),
        "tenant": ("/admin/v1/adapters" + _OWNED, None),
    },
    ("POST", "/admin/v1/adapters"): {
        "tenant": (
            "/admin/v1/adapters",
            {"upload": "0" * 32, "base": "fake-model", "name": "x", "tenant": "{}"},
        ),
    },
    ("GET", "/admin/v1/adapters/{adapter}"): {
        "adapter": ("/admin/v1/adapters/{}", None), "digest": ("/admin/v1/adapters/{}", None),
        "tenant": ("/admin/v1/adapters/x" + _OWNED, None),
    },
    ("GET", "/admin/v1/adapters/{adapter}/signatures"): {
        "adapter": ("/admin/v1/adapters/{}/signatures", None),
        "digest": ("/admin/v1/adapters/{}/signatures", None),
        "tenant": ("/admin/v1/adapters/x/signatures" + _OWNED, None),
    },
    ("POST", "/admin/v1/adapters/{adapter}/signatures"): {
        "adapter": ("/admin/v1/adapters/{}/signatures", None),
        "digest": ("/admin/v1/adapters/{}/signatures", None),
        "tenant": ("/admin/v1/adapters/x/signatures" + _OWNED, None),
    },
    ("GET", "/admin/v1/signing-keys"): {},
    ("POST", "/admin/v1/signing-keys"): {},
    ("POST", "/admin/v1/signing-keys/{key}/revoke"): {},
    ("DELETE", "/admin/v1/adapters/{adapter}"): {
        "adapter": ("/admin/v1/adapters/{}", None), "digest": ("/admin/v1/adapters/{}", None),
        "tenant": ("/admin/v1/adapters/x" + _OWNED, None),
    },
    ("GET", "/admin/v1/lineage"): {
        "alias": ("/admin/v1/lineage?alias={}", None),
        "tenant": ("/admin/v1/lineage?alias=x&tenant={}", None),
    },
    ("GET", "/admin/v1/lineage/bom"): {
        "alias": ("/admin/v1/lineage/bom?alias={}", None),
        "tenant": ("/admin/v1/lineage/bom?alias=x&tenant={}", None),
    },
    ("GET", "/admin/v1/datasets"): {
        "dataset": ("/admin/v1/datasets?after={}", None),
        "tenant": ("/admin/v1/datasets" + _OWNED, None),
    },
    ("POST", "/admin/v1/datasets"): {
        "tenant": (
            "/admin/v1/datasets",
            {"upload": "0" * 32, "name": "x", "licence": "x", "origin": "x", "tenant": "{}"},
        ),
    },
    ("POST", "/admin/v1/datasets/from-feedback"): {
        "alias": (
            "/admin/v1/datasets/from-feedback", {"name": "x", "licence": "x", "alias": "{}"}
        ),
        "tenant": (
            "/admin/v1/datasets/from-feedback", {"name": "x", "licence": "x", "tenant": "{}"}
        ),
    },
    ("GET", "/admin/v1/datasets/{dataset}"): {
        "dataset": ("/admin/v1/datasets/{}", None),
        "dataset digest": ("/admin/v1/datasets/{}", None),
        "tenant": ("/admin/v1/datasets/x" + _OWNED, None),
    },
    ("DELETE", "/admin/v1/datasets/{dataset}"): {
        "dataset": ("/admin/v1/datasets/{}", None),
        "dataset digest": ("/admin/v1/datasets/{}", None),
        "tenant": ("/admin/v1/datasets/x" + _OWNED, None),
    },
    ("GET", "/admin/v1/routes"): {
        "alias": ("/admin/v1/routes?after={}", None),
        "tenant": ("/admin/v1/routes" + _OWNED, None),
    },
    ("POST", "/admin/v1/routes"): {
        "adapter": (
            "/admin/v1/routes", {"alias": "new", "base": "fake-model", "adapter": "{}"}
        ),
        "digest": (
            "/admin/v1/routes", {"alias": "new", "base": "fake-model", "adapter": "{}"}
        ),
        "tenant": ("/admin/v1/routes", {"alias": "x", "base": "fake-model", "tenant": "{}"}),
    },
    ("GET", "/admin/v1/routes/{alias:path}"): {
        "alias": ("/admin/v1/routes/{}", None),
        "tenant": ("/admin/v1/routes/x" + _OWNED, None),
    },
    ("DELETE", "/admin/v1/routes/{alias:path}"): {
        "alias": ("/admin/v1/routes/{}", None),
        "tenant": ("/admin/v1/routes/x" + _OWNED, None),
    },
    ("GET", "/admin/v1/whoami"): {},
    ("GET", "/admin/v1/sessions"): {
        "person": ("/admin/v1/sessions?person={}", None),
        "tenant": ("/admin/v1/sessions" + _OWNED, None),
        "tenant id": ("/admin/v1/sessions" + _OWNED, None),
    },
    ("POST", "/admin/v1/sessions"): {},
    ("DELETE", "/admin/v1/sessions"): {
        "person": ("/admin/v1/sessions?person={}", None),
        "tenant": ("/admin/v1/sessions?all=true&tenant={}", None),
    },
    ("DELETE", "/admin/v1/sessions/current"): {},
    ("DELETE", "/admin/v1/sessions/{session_id}"): {
        "session": ("/admin/v1/sessions/{}", None),
        "tenant": ("/admin/v1/sessions/ses_x" + _OWNED, None),
    },
    ("GET", "/admin/v1/roles"): {
        "tenant": ("/admin/v1/roles" + _OWNED, None),
        "tenant id": ("/admin/v1/roles" + _OWNED, None),
    },
    ("POST", "/admin/v1/roles"): {
        "tenant": ("/admin/v1/roles", {"group": "g", "role": "user", "tenant": "{}"}),
    },
    ("DELETE", "/admin/v1/roles"): {
        "group": ("/admin/v1/roles?role=user&group={}", None),
        "tenant": ("/admin/v1/roles?role=user&group=g&tenant={}", None),
    },
    ("POST", "/admin/v1/policies/explain"): {
        "key": ("/admin/v1/policies/explain", {"key": "{}", "action": "read_keys"}),
        "person": ("/admin/v1/policies/explain", {"person": "{}", "action": "read_keys"}),
        "alias": ("/admin/v1/policies/explain", {"groups": ["g"], "model": "{}"}),
        "tenant": (
            "/admin/v1/policies/explain", {"groups": ["g"], "action": "infer", "model": "x",
                                           "tenant": "{}"},
        ),
    },
    ("GET", "/admin/v1/policies"): {
        "tenant": ("/admin/v1/policies" + _OWNED, None),
        "tenant id": ("/admin/v1/policies" + _OWNED, None),
    },
    ("POST", "/admin/v1/policies"): {
        "tenant": ("/admin/v1/policies", {"name": "x", "text": _PERMIT, "tenant": "{}"}),
        "policy": ("/admin/v1/policies", {"name": "{}", "text": _PERMIT}),
    },
    ("DELETE", "/admin/v1/policies/{name}"): {
        "policy": ("/admin/v1/policies/{}", None),
        "tenant": ("/admin/v1/policies/x" + _OWNED, None),
    },
    ("GET", "/admin/v1/limits"): {
        "tenant": ("/admin/v1/limits" + _OWNED, None),
        "tenant id": ("/admin/v1/limits" + _OWNED, None),
    },
    ("POST", "/admin/v1/limits"): {
        "key": ("/admin/v1/limits", {"measure": "concurrency", "amount": 1, "key": "{}"}),
        "tenant": ("/admin/v1/limits", {"measure": "concurrency", "amount": 1, "tenant": "{}"}),
    },
    ("DELETE", "/admin/v1/limits/{limit_id}"): {
        "limit": ("/admin/v1/limits/{}", None),
        "tenant": ("/admin/v1/limits/x" + _OWNED, None),
    },
    ("GET", "/admin/v1/prices"): {},
    ("DELETE", "/admin/v1/subjects/{subject:path}"): {
        "subject": ("/admin/v1/subjects/{}", None),
        "tenant": ("/admin/v1/subjects/x" + _OWNED, None),
    },
    ("GET", "/admin/v1/usage"): {
        "key": ("/admin/v1/usage?key={}", None),
        "tenant": ("/admin/v1/usage" + _OWNED, None),
        "tenant id": ("/admin/v1/usage" + _OWNED, None),
    },
    ("GET", "/admin/v1/audit"): {
        "tenant": ("/admin/v1/audit" + _OWNED, None),
        "tenant id": ("/admin/v1/audit" + _OWNED, None),
    },
    ("GET", "/admin/v1/audit/content/{request}"): {
        "request": ("/admin/v1/audit/content/{}", None),
        "tenant": ("/admin/v1/audit/content/req_x" + _OWNED, None),
    },
    ("DELETE", "/admin/v1/audit/content/{request}"): {
        "request": ("/admin/v1/audit/content/{}", None),
        "tenant": ("/admin/v1/audit/content/req_x" + _OWNED, None),
    },
    ("GET", "/admin/v1/events"): {
        "tenant": ("/admin/v1/events" + _OWNED, None),
        "tenant id": ("/admin/v1/events" + _OWNED, None),
    },
    ("GET", "/admin/v1/requests"): {
        "request": ("/admin/v1/requests?before={}", None),
        "tenant": ("/admin/v1/requests" + _OWNED, None),
        "tenant id": ("/admin/v1/requests" + _OWNED, None),
    },
}  # fmt: skip
# These answer whoever is meant, and find nobody.
_NOTHING_DONE = {
    ("DELETE", "/admin/v1/sessions"), ("POST", "/admin/v1/policies/explain"),
    ("POST", "/admin/v1/datasets/from-feedback"),
}  # fmt: skip
_CASES = [(*operation, kind) for operation, kinds in _TABLE.items() for kind in kinds]


_THEIR_SESSION = Session(
    id="ses_" + "7" * 26, tenant_id=_THEIRS, person_id="per_" + "b" * 26,
    kind=SessionKind.COMMAND, issuer=_ISSUER, subject="secret-sub",
    groups=frozenset({"secret-team"}), tenant_value=None, name="secret-name", issued_at_us=2,
    token_expires_at_us=2**60, created_at_us=3, last_used_at_us=3, expires_at_us=2**60,
)  # fmt: skip


_THEIR_PROMOTION = "pro_" + "7" * 26
_THEIR_DECISION, _THEIR_JOB = "dec_" + "7" * 26, "job_" + "7" * 26
_THEIR_GATE = "gat_" + "7" * 26
_THEIR_DATASET = a_dataset(_THEIRS, "secret-data", id="dat_" + "7" * 26)


class House:
    """Two tenants: `mine` asks, `theirs` has one of each kind."""

    def __init__(self, world: Running, mine: str, theirs: Mapping[str, str]) -> None:
        self.world = world
        self.mine = mine
        self.theirs = theirs
        # Of the same shape and length, and nobody's.
        self.absent = {
            "alias": "absent-bot", "adapter": "absent-lora", "digest": f"sha256:{'0' * 64}",
            "key": "key_" + "0" * 26, "subject": "key_" + "0" * 26, "key hash": "0" * 64,
            "tenant": "absent-co",
            "tenant id": "ten_absent", "limit": "lim_" + "0" * 26,
            "policy": "absent-rule", "request": "req_" + "0" * 26,
            "person": "per_" + "a" * 26, "session": "ses_" + "0" * 26, "group": "absent-team",
            "decision": "dec_" + "0" * 26, "job": "job_" + "0" * 26, "gate": "gat_" + "0" * 26,
            "promotion": "pro_" + "0" * 26,
            "dataset": "dat_" + "0" * 26, "dataset digest": f"sha256:{'0' * 64}",
        }  # fmt: skip

    async def ask(self, method: str, request: Request, name: str) -> tuple[int, str]:
        path, body = request
        if isinstance(body, dict):
            body = {key: name if value == "{}" else value for key, value in body.items()}
        headers = {"authorization": f"Bearer {self.mine}"}
        async with httpx2.AsyncClient(
            base_url=self.world.url, headers=headers, verify=False
        ) as client:
            answer = await client.request(method, path.replace("{}", name), json=body)
        return answer.status_code, answer.text.replace(name, "NAME")

    def all_of_theirs(self) -> str:
        """What the store has of them; a lost or changed bit shows."""
        self.world.gateway.ledger.flush()
        store = self.world.gateway.store
        return repr([
            store.tenant(_THEIRS), store.keys(_THEIRS), store.records(_THEIRS, 100),
            store.policies(_THEIRS), store.limits(_THEIRS), store.sessions(_THEIRS, 1),
            store.decisions(_THEIRS), store.gates(_THEIRS, 100),
            *(store.promotions(_THEIRS, each, 100) for each in Environment),
            *(store.jobs(_THEIRS, each, 100) for each in Environment),
            *(store.role_grants(_THEIRS, each) for each in Environment),
            *(store.routes(_THEIRS, each) for each in Environment),
            *(store.adapters(_THEIRS, each, 100) for each in Environment),
            *(store.datasets(_THEIRS, each, 100) for each in Environment),
        ])  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    folder = tmp_path_factory.mktemp("house")
    provider = {"issuer": _ISSUER, "audiences": ["x"]}
    async with running(_stock(folder / "home"), identity_providers=[provider]) as world:
        await world.replica.ensure_ready(20)
        for tenant_id, name in ((_THEIRS, "secret-co"), ("ten_mine", "my-co")):
            world.gateway.store.add_tenant(tenant_id, name, 1)
            world.gateway.store.set_feedback(tenant_id, True)
        world.gateway.store.put_policy(Policy("secret-rule", _PERMIT, _THEIRS))
        world.gateway.store.set_limit(_THEIRS, Limit(
            "lim_SECRET", _THEIRS, None, None, Measure.TOKENS, Period.TOTAL, 10**9, True, 1
        ))  # fmt: skip
        world.gateway.store.add_dataset(_THEIRS, _THEIR_DATASET)
        world.gateway.store.add_decision(_THEIRS, a_decision(_THEIR_DECISION, _THEIRS))
        world.gateway.store.add_job(_THEIRS, a_job(_THEIR_JOB, _THEIRS))
        moved = a_promotion(_THEIR_PROMOTION, _THEIRS, alias="promoted")
        world.gateway.store.promote(_THEIRS, moved, a_route(_THEIRS, "promoted"))
        world.gateway.store.add_gate(_THEIRS, a_gate(_THEIR_GATE, _THEIRS))
        await world.gateway.access.refresh()
        mine, theirs = _key(world, "ten_mine", "my-key"), _key(world, _THEIRS, "secret-key")
        headers = {"authorization": f"Bearer {theirs}"}
        async with httpx2.AsyncClient(base_url=world.url, headers=headers, verify=False) as client:
            ticket = stage(world.home.path, peft_folder(folder / "a", 8))
            body = {"upload": ticket, "base": "fake-model", "name": "secret-lora"}
            added = await client.post("/admin/v1/adapters", json=body)
            body = {"alias": "secret-bot", "base": "fake-model", "adapter": "secret-lora"}
            assert (await client.post("/admin/v1/routes", json=body)).status_code == 200
            asked = {"model": "secret-bot", "messages": _MESSAGES}
            done = await client.post("/v1/chat/completions", json=asked)
            assert done.status_code == 200, done.text
        store = world.gateway.store
        store.add_session(_THEIR_SESSION, b"hash", b"token", None)
        store.grant_role(RoleGrant(_THEIRS, Environment.DEV, _ISSUER, "secret-team", Role.USER))
        await world.gateway.access.refresh()
        yield House(world, mine, {
            "alias": "secret-bot", "adapter": "secret-lora", "digest": added.json()["digest"],
            "key": "key_" + theirs.split("_")[2], "subject": "key_" + theirs.split("_")[2],
            "key hash": hashlib.sha256(theirs.encode()).hexdigest(),
            "tenant": "secret-co", "tenant id": _THEIRS, "limit": "lim_SECRET",
            "policy": "secret-rule",
            "request": done.headers["x-freehold-request-id"], "group": "secret-team",
            "person": _THEIR_SESSION.person_id, "session": _THEIR_SESSION.id,
            "decision": _THEIR_DECISION, "job": _THEIR_JOB, "gate": _THEIR_GATE,
            "promotion": _THEIR_PROMOTION,
            "dataset": _THEIR_DATASET.id, "dataset digest": _THEIR_DATASET.digest,
        })  # fmt: skip


def _key(world: Running, tenant_id: str, name: str) -> str:
    wanted = KeyRequest(tenant_id, Environment.DEV, name, frozenset({Scope.INFER, Scope.ADMIN}))
    _, key = world.gateway.keyring.mint(wanted)
    assert key is not None
    return key.reveal()


async def test_the_table_names_every_operation_and_nothing_else(house: House) -> None:
    there = {(each.method, each.path) for each in operations(house.world.gateway)}
    assert set(_TABLE) == there
    for _, path, kind in _CASES:
        assert kind in house.theirs, path
    for (_, path), kinds in _TABLE.items():
        named = {
            "alias:path": "alias",
            "key_id": "key",
            "subject:path": "subject",
            "limit_id": "limit",
            "adapter": "adapter",
            "tenant": "tenant",
            "name": "policy",
            "session_id": "session",
            "decision": "decision",
            "job": "job",
            "dataset": "dataset",
        }
        for parameter, kind in named.items():
            assert f"{{{parameter}}}" not in path or kind in kinds, path


@pytest.mark.parametrize(("method", "path", "kind"), _CASES)
async def test_what_is_somebody_elses_looks_as_if_it_were_not_there(
    house: House, method: str, path: str, kind: str
) -> None:
    request, before = _TABLE[method, path][kind], house.all_of_theirs()
    theirs = await house.ask(method, request, house.theirs[kind])
    absent = await house.ask(method, request, house.absent[kind])
    assert theirs == absent
    assert theirs[0] in (403, 404) or method == "GET" or (method, path) in _NOTHING_DONE
    assert house.all_of_theirs() == before


@pytest.mark.parametrize(("method", "path"), [each for each in _TABLE if "{" not in each[1]])
async def test_no_answer_tells_of_anything_of_another_tenants(
    house: House, method: str, path: str
) -> None:
    """Also not in lists, nor to who sends nothing."""
    answer = await house.ask(method, (path, None if method == "GET" else {}), "NOTHING")
    for kind, name in house.theirs.items():
        assert name not in answer[1], kind
    assert not re.search("secret-(bot|co|data|key|lora|rule|team|sub|name)", answer[1])


async def test_the_same_names_are_free_for_everybody(house: House) -> None:
    """A refusal would tell that somebody has them."""
    ticket = stage(
        house.world.home.path,
        await asyncio.to_thread(peft_folder, house.world.home.path.parent / "b", 8),
    )
    headers = {"authorization": f"Bearer {house.mine}"}
    async with httpx2.AsyncClient(
        base_url=house.world.url, headers=headers, verify=False
    ) as client:
        body = {"upload": ticket, "base": "fake-model", "name": "secret-lora"}
        added = await client.post("/admin/v1/adapters", json=body)
        assert added.status_code == 201, "the same files, under the same name"
        body = {"alias": "secret-bot", "base": "fake-model"}
        assert (await client.post("/admin/v1/routes", json=body)).status_code == 200
        for path in ("routes/secret-bot", "adapters/secret-lora"):
            assert (await client.delete(f"/admin/v1/{path}")).status_code == 200
    theirs = {route.alias for route in house.world.gateway.store.routes(_THEIRS, Environment.DEV)}
    assert theirs == {"secret-bot", "promoted"}
