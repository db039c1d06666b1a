"""Each tenant sees and changes its own, by every method of the store."""

import inspect
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from freehold.core.binding import Environment
from freehold.core.departure import OnDeparture, Restraint
from freehold.core.errors import UserError
from freehold.core.job import JobState
from freehold.core.limit import Window
from freehold.core.lineage import Remains
from freehold.core.tenant import IsolationClass
from freehold.store.holds import Wanted
from freehold.store.sql import SqlStore
from tests.store.making import (
    a_dataset,
    a_decision,
    a_feedback,
    a_gate,
    a_job,
    a_key,
    a_limit,
    a_promotion,
    a_route,
    a_signature,
    adapter,
    furnish,
)

_SCOPED: dict[str, Callable[[SqlStore, str], Any]] = {
    "keys": lambda store, tenant: store.keys(tenant),
    "revoke_key": lambda store, tenant: store.revoke_key(tenant, "key_ten_a", 7),
    "routes": lambda store, tenant: store.routes(tenant, Environment.DEV),
    "usage": lambda store, tenant: [
        store.usage(tenant, 0, 10**16), store.usage(tenant, 0, 10**16, "key_ten_a")
    ],
    "records": lambda store, tenant: [
        store.records(tenant, 1000), store.records(tenant, 1000, "req_z")
    ],
    "put_routes": lambda store, tenant: store.put_routes(tenant, Environment.DEV, []),
    "set_route": lambda store, tenant: store.set_route(
        tenant, replace(a_route(tenant, "a person's"), id=f"rte_set by {tenant}")
    ),
    "remove_route": lambda store, tenant: store.remove_route(
        tenant, Environment.DEV, "a person's"
    ),
    "adapters": lambda store, tenant: store.adapters(tenant, Environment.DEV, 10),
    "adapters_called": lambda store, tenant: [
        store.adapters_called(tenant, Environment.DEV, name)
        for name in ("a ten_a", adapter("ten_a").digest)
    ],
    "add_adapters": lambda store, tenant: store.add_adapters(
        tenant, [adapter(tenant, f"added by {tenant}", id=f"adp_{uuid4()}")]
    ),
    "remove_adapter": lambda store, tenant: store.remove_adapter(tenant, "adp_ten_a"),
    "datasets": lambda store, tenant: store.datasets(tenant, Environment.DEV, 10),
    "dataset": lambda store, tenant: [
        store.dataset(tenant, Environment.DEV, name)
        for name in ("dat_ten_a", a_dataset("ten_a", "tickets").digest)
    ],
    "add_dataset": lambda store, tenant: store.add_dataset(
        tenant, a_dataset(tenant, f"added by {tenant}", id=f"dat_{uuid4()}")
    ),
    "remove_dataset": lambda store, tenant: store.remove_dataset(tenant, "dat_ten_a"),
    "add_words": lambda store, tenant: store.add_words(
        tenant, "sha256:words", ["data key of ten_a", "data key of ten_b"]
    ),
    "is_remembered": lambda store, tenant: store.is_remembered(tenant, "sha256:words"),
    "remembered": lambda store, tenant: store.remembered(tenant, "key_ten_a"),
    "key": lambda store, tenant: store.key(tenant, Environment.DEV, "key_ten_a"),
    "replace_key": lambda store, tenant: store.replace_key(
        tenant, "key_ten_a", a_key(f"key_{uuid4()}", tenant), 9, "token"
    ),
    "standing": lambda store, tenant: store.standing(tenant, ["key_ten_a"]),
    "audit_records": lambda store, tenant: [
        (each.stream, json.loads(each.body)) for each in store.audit_records(tenant, "dev", 100)
    ],
    "living_key": lambda store, tenant: store.living_key(tenant, "key_ten_a"),
    "read_content": lambda store, tenant: store.read_content(tenant, "dev", "req_ten_a"),
    "remove_content": lambda store, tenant: store.remove_content(tenant, "dev", "req_ten_a"),
    "answered": lambda store, tenant: store.answered(tenant, Environment.DEV, "req_ten_a"),
    "put_feedback": lambda store, tenant: store.put_feedback(
        tenant, a_feedback(f"fbk_{uuid4()}", tenant)
    ),
    "feedback": lambda store, tenant: store.feedback(tenant, Environment.DEV, 10),
    "rated": lambda store, tenant: store.rated(tenant, Environment.DEV, 10),
    "thumbs": lambda store, tenant: store.thumbs(tenant, Environment.DEV, "alias of ten_a", 0),
    "every_thumb": lambda store, tenant: store.every_thumb(tenant, Environment.DEV, 0),
    "set_feedback": lambda store, tenant: store.set_feedback(tenant, True),
    "set_audit_content": lambda store, tenant: store.set_audit_content(tenant, True),
    "is_known": lambda store, tenant: store.is_known(tenant, "key_ten_a"),
    "forget_subject": lambda store, tenant: store.forget_subject(tenant, "key_ten_a", 9),
    "events": lambda store, tenant: store.events(tenant, "dev", 10),
    "pattern": lambda store, tenant: store.pattern(tenant, "key_ten_a", "here"),
    "restrain": lambda store, tenant: store.restrain(
        tenant, Environment.DEV, "key_ten_a", Restraint.SUSPENDED, 7
    ),
    "suspended": lambda store, tenant: store.suspended(tenant, ["key_ten_a"]),
    "confirmed": lambda store, tenant: store.confirmed(tenant, Environment.DEV, "key_ten_a"),
    "choose_for_key": lambda store, tenant: store.choose_for_key(
        tenant, Environment.DEV, "key_ten_a", OnDeparture.SUSPEND
    ),
    "choose_for_tenant": lambda store, tenant: store.choose_for_tenant(
        tenant, OnDeparture.SUSPEND
    ),
    "policies": lambda store, tenant: store.policies(tenant),
    "limits": lambda store, tenant: store.limits(tenant),
    "hold": lambda store, tenant: store.gateway and store.hold(tenant, [], lambda *_: None),
    "counted": lambda store, tenant: store.gateway and store.counted(
        tenant, [Wanted(a_limit("ten_a"), Window(0, None), 0)]
    ),
    "release": lambda store, tenant: store.release(tenant, "req_ten_a"),
    "stop_running": lambda store, tenant: store.stop_running(tenant, "req_ten_a"),
    "sessions": lambda store, tenant: store.sessions(tenant, 1),
    "last_session": lambda store, tenant: store.last_session(tenant, "per_1"),
    "end_session": lambda store, tenant: store.end_session(tenant, "ses_1", 7, "per_1"),
    "cut_off": lambda store, tenant: store.cut_off(tenant, "per_1", 7, "per_1"),
    "role_grants": lambda store, tenant: store.role_grants(tenant, Environment.DEV),
    "set_limit": lambda store, tenant: store.set_limit(tenant, a_limit(tenant, amount=5)),
    "remove_limit": lambda store, tenant: store.remove_limit(tenant, Environment.DEV, "lim_ten_a"),
    "spent": lambda store, tenant: store.spent(tenant, a_limit("ten_a"), Window(0, None)),
    "add_decision": lambda store, tenant: store.add_decision(
        tenant, a_decision(f"dec_{uuid4()}", tenant)
    ),
    "decisions": lambda store, tenant: store.decisions(tenant),
    "decision": lambda store, tenant: store.decision(tenant, "dec_ten_a"),
    "begin_check": lambda store, tenant: store.begin_check(tenant, "dec_ten_a", 9, 9),
    "departed": lambda store, tenant: store.departed(tenant, "dec_ten_a", ["volume"]),
    "add_job": lambda store, tenant: store.add_job(tenant, a_job(f"job_{uuid4()}", tenant)),
    "jobs": lambda store, tenant: store.jobs(tenant, Environment.DEV, 9),
    "job": lambda store, tenant: store.job(tenant, Environment.DEV, "job_ten_a"),
    "cancel_job": lambda store, tenant: store.cancel_job(tenant, Environment.DEV, "job_ten_a", 9),
    "resume_job": lambda store, tenant: store.resume_job(tenant, Environment.DEV, "job_ten_a"),
    "remove_job": lambda store, tenant: _refused(
        lambda: store.remove_job("ten_a", Environment.DEV, "job_ten_a")
    ) if tenant == "ten_a" else store.remove_job(tenant, Environment.DEV, "job_ten_a"),
    "take_job": lambda store, tenant: store.take_job(tenant, "job_ten_a", "gw", 9, 99),
    "hold_job": lambda store, tenant: store.hold_job(tenant, "job_ten_a", "gw", 99),
    "end_job": lambda store, tenant: store.end_job(
        tenant, "job_ten_a", "gw", JobState.DONE, 9
    ),
    "put_job_back": lambda store, tenant: store.put_job_back(tenant, "job_ten_a", "gw"),
    "add_gate": lambda store, tenant: store.add_gate(tenant, a_gate(f"gat_{uuid4()}", tenant)),
    "gate": lambda store, tenant: store.gate(tenant, "gat_ten_a"),
    "gates": lambda store, tenant: store.gates(tenant, 9),
    "gates_of": lambda store, tenant: store.gates_of(tenant, "sha256:b", "sha256:a of ten_a"),
    "led": lambda store, tenant: store.led(tenant, Environment.DEV, "of ten_a", 10**17),
    "asked": lambda store, tenant: store.asked(tenant, Environment.DEV, "req_ten_a"),
    "left": lambda store, tenant: store.left(
        tenant, Remains.ADAPTER, adapter("ten_a").digest
    ),
    "signatures": lambda store, tenant: store.signatures(tenant, adapter(tenant).digest),
    "add_signature": lambda store, tenant: store.add_signature(
        tenant, adapter(tenant), a_signature(tenant, adapter(tenant).digest)
    ),
    "promote": lambda store, tenant: store.promote(
        tenant,
        a_promotion(f"pro_{uuid4()}", tenant, alias=f"new of {tenant}"),
        replace(a_route(tenant, f"new of {tenant}"), id=f"rte_{uuid4()}"),
    ),
    "route": lambda store, tenant: store.route(tenant, Environment.DEV, "n"),
    "promotion": lambda store, tenant: store.promotion(tenant, Environment.DEV, "pro_ten_a"),
    "promotions": lambda store, tenant: store.promotions(tenant, Environment.DEV, 9),
    "last_promotion": lambda store, tenant: store.last_promotion(tenant, Environment.DEV, "n"),
    "answered_by": lambda store, tenant: store.answered_by(
        tenant, Environment.DEV, "m", (None, None), 0, 9
    ),
    "kept_by": lambda store, tenant: store.kept_by(
        tenant, Environment.DEV, f"alias of {tenant}", (None, None), 0, 9
    ),
    "exported": lambda store, tenant: store.exported(tenant, adapter(tenant), "bot"),
    "compared": lambda store, tenant: store.compared(tenant, "pro_ten_a", {"errors": 1}),
    "share_promotion": lambda store, tenant: _refused(
        lambda: store.share_promotion(tenant, "pro_ten_a", 0.7, 9)
    ),
    "roll_back": lambda store, tenant: _refused(
        lambda: store.roll_back(
            tenant, a_promotion("pro_ten_a", "ten_a"), None, "it is worse", "per_1", 9
        )
    ),
    "remove_policy": lambda store, tenant: store.remove_policy(tenant, "nights"),
    "tenant": lambda store, tenant: store.tenant(tenant),
    "holdings": lambda store, tenant: store.holdings(tenant, 1),
    "set_isolation": lambda store, tenant: store.set_isolation(tenant, IsolationClass.WEIGHTS),
    "disable_tenant": lambda store, tenant: store.disable_tenant(tenant, 7),
    "remove_tenant": lambda store, tenant: store.remove_tenant(tenant),
}  # fmt: skip
# These take no tenant: a hash proves who asks, a slot is a keyed hash of the tenant,
# entries and records carry their tenant, and the rest belongs to the installation, which
# `tenants` and `access_number` tell who operates it and its own processes.
_UNSCOPED = {
    "access_number", "acted", "add_events", "add_key", "add_session",
    "add_signing_key", "add_subject_key", "adapters_signed_by", "revoke_signing_key",
    "signing_keys",
    "add_tenant", "apply", "audit_found", "audit_heads", "audit_page", "audit_trail", "beat",
    "billed_here", "claim", "close", "decisions_due", "deliver_later", "delivered",
    "due_deliveries",
    "every_cut_off", "every_event", "every_limit", "every_policy", "every_remembered",
    "every_role_grant",
    "every_subject_key", "fact", "first_fact", "forget_events", "forget_patterns", "grant_role",
    "base", "is_own", "keep_bases",
    "keep_patterns", "key_by_hash", "known_jobs", "limits_mark", "living_sessions",
    "open_jobs", "own", "put_back", "put_fact", "put_policy", "refusals", "refused", "revoke_role",
    "heard", "session_by_hash", "settle_orphans", "subject_keys", "sweep", "take_place",
    "tenant_named",
    "tenants", "unclaim", "use_session", "watched_promotions",
}  # fmt: skip


def _refused(call: Callable[[], Any]) -> None:
    with pytest.raises(UserError):
        call()


def _public() -> set[str]:
    found = inspect.getmembers(SqlStore, inspect.isfunction)
    return {name for name, _ in found if not name.startswith("_")}


def test_every_method_is_listed_with_or_without_a_tenant() -> None:
    assert set(_SCOPED) | _UNSCOPED == _public()
    for name in _SCOPED:
        first = list(inspect.signature(getattr(SqlStore, name)).parameters)[1]
        assert first == "tenant_id", name


def _seen(store: SqlStore, tenant: str) -> str:
    reads = ("keys", "key", "routes", "adapters", "datasets", "dataset", "usage", "records",
             "tenant", "holdings", "standing", "policies", "audit_records", "limits", "spent",
             "decision", "job", "jobs", "answered", "feedback", "thumbs", "gates", "gates_of",
             "signatures", "route", "promotion", "promotions", "last_promotion", "led",
             "asked", "left")  # fmt: skip
    return repr([_SCOPED[name](store, tenant) for name in reads])


def test_nothing_of_another_tenant_is_seen_or_changed_by_any_method(store: SqlStore) -> None:
    for tenant in ("ten_a", "ten_b"):
        furnish(store, tenant)
    mine = _seen(store, "ten_a")
    assert mine.count("ten_a") > 8
    for stranger in ("ten_b", "ten_c", "*", "%", "ten_a' OR '1'='1", "TEN_A", "ten_a "):
        for name, call in _SCOPED.items():
            assert "ten_a" not in repr(call(store, stranger)).replace(stranger, ""), name
        assert _seen(store, "ten_a") == mine
    assert "ten_b" not in mine


def test_what_a_tenant_has_is_told_and_gone_with_it(store: SqlStore) -> None:
    for tenant in ("ten_a", "ten_b"):
        furnish(store, tenant)
    store.add_key(a_key("key_old", expires_at_us=9, hash=b"old"))
    store.add_key(a_key("key_revoked", revoked_at_us=9, hash=b"revoked"))
    held = [(each.kind, each.name, each.environment) for each in store.holdings("ten_a", 10)]
    assert held == [
        ("route", "a person's", "dev"), ("adapter", "a ten_a", "dev"),
        ("dataset", "tickets@1", "dev"),
        ("key", "name of ten_a", "dev"), ("policy", "nights", "all"),
    ]  # fmt: skip
    other = _seen(store, "ten_b")
    assert store.remove_tenant("ten_a")
    assert not store.remove_tenant("ten_a")
    assert [*store.holdings("ten_a", 1), *store.keys("ten_a")] == []
    assert store.routes("ten_a", Environment.DEV) == []
    assert len(store.records("ten_a", 10)) == 1, "what it used stays"
    assert _seen(store, "ten_b") == other
