"""Audit records in the Open Cybersecurity Schema Framework, as SIEMs take them.

An inference is an API Activity (class 6003) of category Application Activity (6); names
and numbers are those of schema.ocsf.io, version 1.5.
"""

from typing import Any

import freehold

_CATEGORY, _CLASS, _OTHER = 6, 6003, 99
_INFORMATIONAL, _LOW = 1, 2
_SUCCESS, _FAILURE = 1, 2


def event(stream: str, number: int, body: dict[str, Any]) -> dict[str, Any]:
    """`body` is a decoded record; what the schema has no place for is in `unmapped`."""
    tenant, _, environment = stream.partition("/")
    is_ok = body["outcome"] == "ok"
    return {
        "category_uid": _CATEGORY,
        "class_uid": _CLASS,
        "activity_id": _OTHER,
        "activity_name": "Inference",
        "type_uid": _CLASS * 100 + _OTHER,
        "time": body["at_us"] // 1000,
        "start_time": body["began_at_us"] // 1000,
        "severity_id": _INFORMATIONAL if is_ok else _LOW,
        "status_id": _SUCCESS if is_ok else _FAILURE,
        "status_code": body["error"] or body["outcome"],
        "actor": {"user": {"uid": body["principal"], "org": {"uid": tenant}}},
        "api": {
            "operation": body["endpoint"],
            "request": {"uid": body["id"]},
            "service": {"name": "freehold", "labels": [environment]},
        },
        "resources": [
            {"type": kind, "uid": body[kind]} for kind in ("base", "adapter") if body[kind]
        ],
        "metadata": {
            "version": "1.5.0",
            "uid": f"{stream}/{number}",
            "sequence": number,
            "product": {
                "name": "Freehold",
                "vendor_name": "Freehold",
                "version": freehold.__version__,
            },
        },
        "unmapped": {
            name: body[name]
            for name in ("model", "engine", "policies", "tokens_in", "tokens_out", "tokens_cached")
        },
    }
