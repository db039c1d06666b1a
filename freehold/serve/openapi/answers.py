"""Answers and refusals as the document writes them."""

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel

from freehold.core.errors import Code
from freehold.serve.errors import HTTP
from freehold.serve.openapi.codes import EXPLAINED
from freehold.serve.replies.error import Error

Schema = dict[str, Any]


def ref(shape: type[BaseModel]) -> Schema:
    return {"$ref": f"#/components/schemas/{shape.__name__}"}


def as_json(shape: type[BaseModel] | None, said: str = "Done") -> Schema:
    schema = {"type": "object"} if shape is None else ref(shape)
    return {
        **as_text("application/json", said),
        "content": {"application/json": {"schema": schema}},
    }


def as_text(kind: str, said: str = "Done") -> Schema:
    return {
        "description": said,
        "headers": {
            "x-freehold-request-id": {"$ref": "#/components/headers/x-freehold-request-id"}
        },
        "content": {kind: {"schema": {"type": "string"}}},
    }


def refusals(codes: Iterable[Code]) -> Schema:
    """One response a status, with the codes that come under it."""
    found: dict[int, list[str]] = {}
    for code in sorted(codes):
        found.setdefault(HTTP[code][0], []).append(code.value)
    return {str(status): _refusal(status, names) for status, names in sorted(found.items())}


def _refusal(status: int, codes: list[str]) -> Schema:
    refusal = as_json(Error, EXPLAINED[status])
    one_of_these = {"properties": {"error": {"properties": {"code": {"enum": codes}}}}}
    content = refusal["content"]["application/json"]
    content["schema"] = {"allOf": [content["schema"], one_of_these]}
    for name in {401: ["www-authenticate"], 429: ["retry-after"], 503: ["retry-after"]}.get(
        status, []
    ):
        refusal["headers"][name] = {"$ref": f"#/components/headers/{name}"}
    return refusal
