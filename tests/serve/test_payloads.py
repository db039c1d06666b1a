"""Every parameter that the OpenAPI document names, of every operation, filled with what is
meant for a database, a shell or a template: refused or not found, and never part of a
statement."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import httpx2
import pytest
from sqlalchemy import Engine, event

from tests.harness import running
from tests.serve.test_bad_input import PAYLOADS, _assert_bound, _Watched

Asked = tuple[str, str, Any]  # method, path with its query, body


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if method in ("get", "post", "patch", "delete"):
                yield method.upper(), path, operation


def _resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    return schema


def _places(document: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Method, path, and where a text may stand in it: in the path, the query or the body."""
    found = []
    for method, path, operation in _operations(document):
        for parameter in operation.get("parameters", ()):
            if parameter["in"] in ("path", "query"):
                found.append((method, path, parameter["in"], parameter["name"]))
        if "requestBody" in operation:
            content = operation["requestBody"]["content"]["application/json"]["schema"]
            properties = _resolved(document, content).get("properties", {})
            found += [(method, path, "body", name) for name in properties]
    return found


def _filled(method: str, path: str, where: str, name: str, payload: str) -> Asked:
    if where == "path":
        path = path.replace(f"{{{name}}}", quote(f"x{payload}", safe=""))
    path = path.replace("{", "").replace("}", "")
    if where == "query":
        return method, f"{path}?{urlencode({name: payload})}", None
    body: dict[str, Any] | None = {name: payload} if where == "body" else None
    return method, path, body if body or method in ("GET", "DELETE") else {}


@pytest.mark.parametrize("each", [27, pytest.param(1, marks=pytest.mark.slow)])
async def test_payloads_in_every_parameter_are_in_no_statement(tmp_path: Path, each: int) -> None:
    """A few of them in each parameter, beginning at another one, and all of them slowly."""
    async with running(tmp_path) as world, world.http() as client:
        document = (await client.get("/openapi.json")).json()
        places = _places(document)
        assert len(places) > 60
        watched = _Watched(world)
        tenants = [each.id for each in world.gateway.store.tenants()]
        event.listen(Engine, "before_cursor_execute", watched.note)
        try:
            for start, place in enumerate(places):
                for payload in itertools.islice(PAYLOADS, start % each, None, each):
                    await _told(client, _filled(*place, payload))
        finally:
            event.remove(Engine, "before_cursor_execute", watched.note)
        _assert_bound(watched)
        assert len(PAYLOADS) >= 200
        # Some are sound names; nothing that was there is gone.
        assert [each.id for each in world.gateway.store.tenants()][: len(tenants)] == tenants
        assert (await world.chat("and everything works")).is_success


async def _told(client: httpx2.AsyncClient, asked: Asked) -> None:
    method, path, body = asked
    answer = await client.request(method, path, json=body)
    assert answer.status_code in (200, 201, 400, 403, 404, 409, 422), (asked, answer.text)
    if answer.is_error:
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
        assert "Traceback" not in answer.text
        assert "sqlite" not in answer.text
