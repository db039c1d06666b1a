"""Audit records in the Open Cybersecurity Schema Framework, as SIEMs take them.

Names and numbers are those of schema.ocsf.io, version 1.5: an inference and most changes are
an API Activity (6003), what is done to keys and to people an Account Change (3001), to
tenants an Entity Management (3004), logins and refused credentials an Authentication (3002).
"""

from collections.abc import Mapping
from typing import Any

import freehold

_API, _ACCOUNT, _AUTHENTICATION, _ENTITY, _BASE = 6003, 3001, 3002, 3004, 0
_CREATE, _READ, _UPDATE, _DELETE, _OTHER = 1, 2, 3, 4, 99
_DISABLE_ACCOUNT, _DELETE_ACCOUNT, _LOGON, _LOGOFF = 5, 6, 1, 2
_INFORMATIONAL, _LOW, _MEDIUM = 1, 2, 3
_SUCCESS, _FAILURE = 1, 2
_SYSTEM = 3  # a user that is no person
# By act: the class, the activity in it, and its name where the class has none.
_ACTS = {
    "tenant.create": (_ENTITY, _CREATE, "Create"),
    "tenant.change": (_ENTITY, _UPDATE, "Update"),
    "tenant.remove": (_ENTITY, _DELETE, "Delete"),
    "key.create": (_ACCOUNT, 1, "Create"),
    "key.rotate": (_ACCOUNT, _OTHER, "Rotate"),
    "key.confirm": (_ACCOUNT, _OTHER, "Confirm"),
    "key.change": (_ACCOUNT, _OTHER, "Change"),
    "key.step_down": (_ACCOUNT, _OTHER, "Step down"),
    "key.suspend": (_ACCOUNT, _DISABLE_ACCOUNT, "Disable"),
    "key.revoke": (_ACCOUNT, _DISABLE_ACCOUNT, "Disable"),
    "session.open": (_AUTHENTICATION, _LOGON, "Logon"),
    "session.end": (_AUTHENTICATION, _LOGOFF, "Logoff"),
    "subject.forget": (_ACCOUNT, _DELETE_ACCOUNT, "Delete"),
}
_VERBS = {
    "create": (_CREATE, "Create"),
    "add": (_CREATE, "Create"),
    "make": (_CREATE, "Create"),
    "set": (_UPDATE, "Update"),
    "change": (_UPDATE, "Update"),
    "remove": (_DELETE, "Delete"),
    "read": (_READ, "Read"),
    "give": (_CREATE, "Create"),
    "collect": (_READ, "Read"),
    "record": (_CREATE, "Create"),
    "import": (_CREATE, "Create"),
    "export": (_READ, "Read"),
    "sign": (_UPDATE, "Update"),
    "start": (_CREATE, "Create"),
    "cancel": (_UPDATE, "Update"),
    "resume": (_UPDATE, "Update"),
    "roll_back": (_UPDATE, "Update"),
    "grant": (_CREATE, "Create"),
    "revoke": (_DELETE, "Delete"),
}
_ABOUT_REQUESTS = ("model", "engine", "policies", "tokens_in", "tokens_out", "tokens_cached")
_ABOUT_ACTS = ("action", "fields", "policies", "via")


def event(
    stream: str, number: int, body: Mapping[str, Any], personal: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """`body` is a decoded record, `personal` what can be read of its personal fields; what
    the schema has no place for is in `unmapped`."""
    kind = body["kind"]
    known = personal or {}
    if kind == "request":
        shown = _request(stream, body, known)
    elif kind == "act":
        shown = _act(stream, body, known)
    elif kind == "refusals":
        shown = _refusals(body)
    else:
        shown = {
            **_of(_BASE, _OTHER, kind.capitalize(), severity=_MEDIUM),
            "message": f"Records {body['records']} were {kind}.",
        }
    return {**shown, "time": body["at_us"] // 1000, "metadata": _metadata(stream, number)}


def _request(stream: str, body: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, Any]:
    resources = [{"type": kind, "uid": body[kind]} for kind in ("base", "adapter") if body[kind]]
    return {
        **_of(_API, _OTHER, "Inference", is_ok=body["outcome"] == "ok"),
        "start_time": body["began_at_us"] // 1000,
        "status_code": body["error"] or body["outcome"],
        "actor": {"user": _actor(stream, body, known)},
        "api": _api(stream, body["endpoint"], body["id"]),
        "src_endpoint": _source(known),
        "resources": resources,
        "unmapped": {name: body[name] for name in _ABOUT_REQUESTS},
    }


def _act(stream: str, body: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, Any]:
    act = body["act"] or ""
    thing, _, verb = act.partition(".")
    class_, activity, name = _ACTS.get(act, (_API, *_VERBS.get(verb, (_OTHER, verb or "Refused"))))
    shown = {
        **_of(class_, activity, name, is_ok=body["outcome"] == "ok"),
        "status_code": body["error"] or body["outcome"],
        "actor": {"user": _actor(stream, body, known)},
        "src_endpoint": _source(known),
        "unmapped": {each: body[each] for each in _ABOUT_ACTS},
    }
    operation, request_id = body["operation"] or act, body["request"] or body["id"]
    if class_ == _API:
        shown["api"] = _api(stream, operation, request_id)
    else:  # the others know no calls of an API
        shown["unmapped"] |= {"operation": operation, "request": request_id}
    named = {"name": body["name"]} if body["name"] else {}
    if class_ == _ACCOUNT:
        about = {"name": known["about"]} if "about" in known else {}
        shown["user"] = {"uid": body["object"], "type_id": _SYSTEM, **about}
    elif class_ == _AUTHENTICATION:
        shown["user"] = _actor(stream, body, known)
        shown["service"] = {"name": "freehold"}
        shown["session"] = {"uid": body["object"]}
    elif class_ == _ENTITY:
        shown["entity"] = {"uid": body["object"], "type": thing, **named}
    elif body["object"]:
        shown["resources"] = [{"type": thing, "uid": body["object"], **named}]
    return shown


def _refusals(body: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **_of(_AUTHENTICATION, _LOGON, "Logon", is_ok=False),
        "start_time": body["since_us"] // 1000,
        "end_time": body["at_us"] // 1000,
        "count": sum(body["counts"].values()),
        "user": {"name": "unknown", "type_id": 0},
        "service": {"name": "freehold"},
        "unmapped": {"counts": body["counts"]},
    }


def _of(
    class_: int, activity: int, name: str, *, is_ok: bool = True, severity: int | None = None
) -> dict[str, Any]:
    return {
        "category_uid": class_ // 1000,
        "class_uid": class_,
        "activity_id": activity,
        "activity_name": name,
        "type_uid": class_ * 100 + activity,
        "severity_id": severity or (_INFORMATIONAL if is_ok else _LOW),
        "status_id": _SUCCESS if is_ok else _FAILURE,
    }


def _actor(stream: str, body: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, Any]:
    fields = {"name": known.get("name"), "email_addr": known.get("email")}
    return {
        "uid": body["principal"],
        "org": {"uid": stream.partition("/")[0]},
        **{name: value for name, value in fields.items() if value},
    }


def _api(stream: str, operation: str, request_id: str) -> dict[str, Any]:
    environment = stream.partition("/")[2]
    service: dict[str, Any] = {"name": "freehold"}
    if environment:
        service["labels"] = [environment]
    return {"operation": operation, "request": {"uid": request_id}, "service": service}


def _source(known: Mapping[str, str]) -> dict[str, str]:
    """The schema wants to know where from; an address may be forgotten, or none."""
    return {"ip": known["address"]} if known.get("address") else {"name": "unknown"}


def _metadata(stream: str, number: int) -> dict[str, Any]:
    return {
        "version": "1.5.0",
        "uid": f"{stream}/{number}",
        "sequence": number,
        "product": {
            "name": "Freehold",
            "vendor_name": "Freehold",
            "version": freehold.__version__,
        },
    }
