"""The OpenAPI document, made from the same models that parse the requests."""

from typing import Any

from pydantic.json_schema import models_json_schema

import freehold
from freehold.core.binding import Principal
from freehold.serve import bodies
from freehold.serve.admin import NewKey, RecordsQuery, UsageQuery
from freehold.serve.wire import Receive, Scope, Send, reply_json

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "string"},
            },
        }
    },
}
_INFERENCE = {
    "chat/completions": "Answer a conversation",
    "completions": "Continue a text",
    "embeddings": "Embed texts",
    "responses": "Answer, in the shape of the Responses API",
}


class Document:
    def __init__(self) -> None:
        self._content = build()

    async def serve(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        await reply_json(send, self._content)


def build() -> dict[str, Any]:
    _, own = models_json_schema(
        [(NewKey, "validation")], ref_template="#/components/schemas/{model}"
    )
    schemas: dict[str, Any] = {"Error": _ERROR, **own.get("$defs", {})}
    paths: dict[str, Any] = {}
    for endpoint, schema in bodies.openapi_schemas().items():
        name = "".join(part.title() for part in endpoint.split("/")) + "Body"
        schemas.update(schema.pop("$defs", {}))
        schemas[name] = schema
        paths[f"/v1/{endpoint}"] = {
            "post": _operation(endpoint.replace("/", "_"), _INFERENCE[endpoint], body=name)
        }
    paths.update(
        {
            "/v1/models": {"get": _operation("list_models", "The models this key may use")},
            "/v1/models/{alias}": {
                "get": _operation("get_model", "One model", parameters=[_path("alias")])
            },
            "/openapi.json": {"get": _operation("openapi", "This document")},
            "/admin/v1/status": {"get": _operation("status", "Replicas, queues, memory")},
            "/admin/v1/models": {"get": _operation("model_cards", "The cards of served models")},
            "/admin/v1/keys": {
                "get": _operation("list_keys", "The keys of this tenant, never their secrets"),
                "post": _operation("create_key", "Make a key", body="NewKey", status="201"),
            },
            "/admin/v1/keys/{key_id}": {
                "delete": _operation("revoke_key", "Revoke a key", parameters=[_path("key_id")])
            },
            "/admin/v1/usage": {
                "get": _operation("usage", "Usage by key, model and day", query=UsageQuery)
            },
            "/admin/v1/requests": {
                "get": _operation("requests", "Single requests, newest first", query=RecordsQuery)
            },
            "/healthz": {"get": _open("healthz", "The process answers")},
            "/readyz": {"get": _open("readyz", "A request could be served now")},
            "/metrics": {"get": _open("metrics", "Prometheus metrics", "text/plain")},
        }
    )
    return {
        "openapi": "3.1.0",
        "info": {"title": "Freehold", "version": freehold.__version__},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}],
    }


def _operation(
    name: str,
    summary: str,
    *,
    body: str | None = None,
    parameters: list[dict[str, Any]] | None = None,
    query: type[UsageQuery] | type[RecordsQuery] | None = None,
    status: str = "200",
) -> dict[str, Any]:
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    operation: dict[str, Any] = {
        "operationId": name,
        "summary": summary,
        "responses": {
            status: {
                "description": "Done",
                "content": {
                    "application/json": {"schema": {"type": "object"}},
                    **({"text/event-stream": {}} if body and body != "NewKey" else {}),
                },
            },
            "4XX": {"description": "The request's fault", "content": error},
            "5XX": {"description": "The service's fault", "content": error},
        },
    }
    if body is not None:
        schema = {"$ref": f"#/components/schemas/{body}"}
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema}},
        }
    found = list(parameters or [])
    if query is not None:
        for field, schema in query.model_json_schema()["properties"].items():
            found.append({"name": field, "in": "query", "required": False, "schema": schema})
    if found:
        operation["parameters"] = found
    return operation


def _path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _open(name: str, summary: str, kind: str = "application/json") -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "security": [],
        "responses": {
            "200": {"description": "Yes", "content": {kind: {}}},
            "503": {"description": "Not now", "content": {kind: {}}},
        },
    }
