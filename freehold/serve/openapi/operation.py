"""An operation of the document, made from its row of the table."""

from typing import Any

from pydantic import BaseModel

from freehold.serve.openapi.answers import Schema, as_json, ref, refusals
from freehold.serve.openapi.codes import GUARDED
from freehold.serve.openapi.entry import Entry
from freehold.serve.openapi.headers import INFERENCE_HEADERS, RATE_HEADERS
from freehold.serve.replies.error import Error
from freehold.serve.replies.responses import ResponseEvent


def written(entry: Entry) -> Schema:
    operation: Schema = {
        "operationId": entry.name,
        "tags": [entry.tag],
        "summary": entry.summary,
        "responses": {str(entry.status): _answer(entry), **refusals(GUARDED | entry.codes)},
    }
    parameters = _parameters(entry)
    if parameters:
        operation["parameters"] = parameters
    if entry.body is not None:
        content = {"application/json": {"schema": ref(entry.body)}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _answer(entry: Entry) -> Schema:
    answer = as_json(entry.answer)
    if entry.streams is not None:
        answer["content"]["text/event-stream"] = {"schema": _event(entry.streams)}
    if entry.tag == "inference":
        for name in (
            "x-freehold-model-digest", "x-freehold-adapter-digest", "x-freehold-engine",
            "x-freehold-weights", *RATE_HEADERS,
        ):  # fmt: skip
            answer["headers"][name] = {"$ref": f"#/components/headers/{name}"}
    return answer


def _event(shape: type[BaseModel]) -> Schema:
    """What `stream: true` brings: this schema is of each event, as tools for
    OpenAPI 3.1 read it."""
    holds = {"anyOf": [ref(shape), ref(Error)]}
    data: Schema = {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": holds,
    }
    if shape is not ResponseEvent:
        data = {"anyOf": [{"const": "[DONE]"}, data]}
    return {
        "type": "object",
        "description": "One server-sent event; `[DONE]` ends a stream that is whole.",
        "required": ["data"],
        "properties": {"event": {"type": "string"}, "data": data},
    }


def _parameters(entry: Entry) -> list[Schema]:
    found: list[Schema] = [
        {"name": part[1:-1], "in": "path", "required": True, "schema": {"type": "string"}}
        for part in entry.path.split("/")
        if part.startswith("{")
    ]
    if entry.query is not None:
        whole = entry.query.model_json_schema(ref_template="{model}")
        needed, own = whole.get("required", ()), whole.get("$defs", {})
        found += [
            {"name": name, "in": "query", "required": name in needed, "schema": _with(own, schema)}
            for name, schema in whole["properties"].items()
        ]
    if entry.tag == "inference":
        found += INFERENCE_HEADERS
    return found


def _with(own: Schema, part: Any) -> Any:
    """What it refers to in place: the shapes of bodies may have another of that name."""
    if isinstance(part, dict):
        if "$ref" in part:
            return _with(own, own[part["$ref"]])
        return {name: _with(own, each) for name, each in part.items()}
    return [_with(own, each) for each in part] if isinstance(part, list) else part
