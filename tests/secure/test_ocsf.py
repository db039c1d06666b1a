"""Records as SIEMs take them: the classes of the schema, and what each of them requires."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from freehold.core.acts import Act
from freehold.secure.ocsf import event

# An attribute: its type or object, whether it is required or a list (`[]`), and its numbers.
_SCHEMA = orjson.loads((Path(__file__).parent / "ocsf_1_5.json").read_bytes())
_CLASSES_BY_UID = {each["uid"]: each for each in _SCHEMA["classes"].values()}
_TYPES = {
    "boolean_t": bool, "integer_t": int, "long_t": int, "timestamp_t": int, "string_t": str,
    "datetime_t": str, "email_t": str, "ip_t": str, "json_t": object, "object": dict,
    "resource_uid_t": str, "username_t": str,
}  # fmt: skip


def _check(given: dict[str, Any], named: dict[str, Any], where: str) -> None:
    """Whether what is given is what the schema names, to the last part."""
    attributes = named["attributes"]
    for name, value in given.items():
        assert name in attributes, f"{where}.{name} is not in the schema"
        kind, marks, *numbers = attributes[name]
        each = value if marks.endswith("[]") else [value]
        assert isinstance(each, list), f"{where}.{name} is a list"
        for part in each:
            if kind in _SCHEMA["objects"]:
                _check(part, _SCHEMA["objects"][kind], f"{where}.{name}")
            else:
                assert isinstance(part, _TYPES[kind]), f"{where}.{name}"
                assert not numbers or part in numbers[0], f"{where}.{name}"
    lacking = {name for name, (_, marks, *_) in attributes.items() if "required" in marks}
    assert not lacking - given.keys(), where
    one_of = named["constraints"].get("at_least_one", given)
    assert given.keys() & set(one_of), f"{where} has none of {one_of}"


_REQUEST = {
    "kind": "request", "id": "req_1", "at_us": 5_000_000, "began_at_us": 4_000_000,
    "principal": "key_1", "endpoint": "chat/completions", "model": "m", "engine": "fake",
    "base": "sha256:b", "adapter": None, "policies": ["freehold/users-use-models"],
    "outcome": "ok", "error": None, "tokens_in": 3, "tokens_out": 7, "tokens_cached": 1,
    "estimated": False,
}  # fmt: skip
_ACT: dict[str, Any] = {
    "kind": "act", "id": "evt_1", "at_us": 5_000_000, "act": None, "object": None, "name": None,
    "fields": [], "principal": "key_1", "via": "api", "action": "change_keys",
    "operation": "POST /admin/v1/keys", "request": "req_1", "policies": [], "outcome": "ok",
    "error": None,
}  # fmt: skip


def _valid(shown: dict[str, Any], class_: int, activity: int) -> dict[str, Any]:
    assert shown["class_uid"] == class_
    assert shown["activity_id"] == activity
    assert shown["category_uid"] == class_ // 1000
    assert shown["type_uid"] == class_ * 100 + activity
    assert shown["metadata"]["version"] == _SCHEMA["version"]
    _check(shown, _CLASSES_BY_UID[class_], str(class_))
    return shown


def test_a_request_is_an_api_activity() -> None:
    shown = _valid(event("ten_a/dev", 3, _REQUEST, {"address": "10.1.2.3"}), 6003, 99)
    assert shown["src_endpoint"] == {"ip": "10.1.2.3"}
    assert shown["api"]["service"]["labels"] == ["dev"]
    assert event("ten_a/dev", 3, _REQUEST)["src_endpoint"] == {"name": "unknown"}


_CLASSES = {
    "tenant.create": (3004, 1), "tenant.change": (3004, 3), "tenant.remove": (3004, 4),
    "key.create": (3001, 1), "key.rotate": (3001, 99), "key.revoke": (3001, 5),
    "route.set": (6003, 3), "route.remove": (6003, 4), "adapter.add": (6003, 1),
    "adapter.remove": (6003, 4), "policy.set": (6003, 3), "policy.remove": (6003, 4),
    "limit.set": (6003, 3), "limit.remove": (6003, 4), "subject.forget": (3001, 6),
    "backup.make": (6003, 1), "key.confirm": (3001, 99), "key.change": (3001, 99),
    "key.step_down": (3001, 99), "key.suspend": (3001, 5), "content.read": (6003, 2),
    "content.remove": (6003, 4), "feedback.give": (6003, 1), "feedback.collect": (6003, 2),
    "session.open": (3002, 1),
    "session.end": (3002, 2), "session.cut_off": (6003, 99), "role.grant": (6003, 1),
    "role.revoke": (6003, 4), "dataset.add": (6003, 1), "dataset.remove": (6003, 4),
    "decision.record": (6003, 1), "job.start": (6003, 1), "job.cancel": (6003, 3),
    "job.resume": (6003, 3), "job.remove": (6003, 4), "gate.make": (6003, 1),
    "gate.import": (6003, 1), "revision.export": (6003, 2),
    "adapter.sign": (6003, 3), "signing_key.rotate": (6003, 99),
    "signing_key.revoke": (6003, 4),
    "promotion.make": (6003, 1), "promotion.change": (6003, 3), "promotion.roll_back": (6003, 3),
}  # fmt: skip


@pytest.mark.parametrize("act", Act)
def test_each_act_has_the_class_that_is_about_it(act: Act) -> None:
    body = {**_ACT, "act": act.value, "object": "thing_1", "name": "called"}
    shown = _valid(event("ten_a/dev", 4, body, {"about": "Mira"}), *_CLASSES[act])
    assert "thing_1" in str(shown)
    assert shown["actor"]["user"]["uid"] == "key_1"
    assert (shown["status_id"], shown["severity_id"]) == (1, 1)


def test_what_was_refused_and_who_was_not_known_are_failures() -> None:
    refused = {**_ACT, "outcome": "refused", "error": "insufficient_permissions"}
    shown = _valid(event("ten_a/dev", 4, refused), 6003, 99)
    assert (shown["status_id"], shown["status_code"]) == (2, "insufficient_permissions")
    counts = {"kind": "refusals", "at_us": 9, "since_us": 1, "counts": {"invalid_api_key": 4}}
    assert _valid(event("installation", 1, counts), 3002, 1)["count"] == 4
    for kind in ("undone", "restored"):
        _valid(event("ten_a/dev", 5, {"kind": kind, "at_us": 1, "records": [4]}), 0, 99)
