"""Names that look like others: what people name is plain ASCII of a closed form, everywhere."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2

from freehold.core.binding import Environment
from tests.harness import Running, asked, running
from tests.serve.test_adapters import _stock

_ACME = "acme"
# Each reads as `acme`, or as it and something more.
LOOK_ALIKES = [
    "\u0430cme", "a\u0441me", "acm\u0435", "\uff41cme", "\U0001d41acme", "acme\u200b",
    "\u200dacme", "ac\u00adme", "acme\u202e", "\u2066acme\u2069", "acme\ufeff", "a\u0301cme",
    "\u00e1cme", "acme\n", "acme ", " acme", "acme\t", "acme\x00", "acme\u00a0", "ac\u2024me",
    "acme\u3002", "\u24d0cme", "\uff0facme", "acme\u2215", "\u0251cme", "\u03b1cme", "a\u03f2me",
    "acme\ufe0f", "acme\U000e0061",
]  # fmt: skip


async def _refused(client: httpx2.AsyncClient, path: str, body: dict[str, Any]) -> None:
    answer = await client.post(path, json=body)
    assert answer.status_code == 400, (body, answer.text)
    assert answer.json()["error"]["code"] == "invalid_value"


async def test_nothing_can_be_given_a_name_that_looks_like_another(tmp_path: Path) -> None:
    async with running(_stock(tmp_path / "home")) as world, world.http() as client:
        before = _state(world)
        for name in LOOK_ALIKES:
            await _refused(client, "/admin/v1/tenants", {"name": name})
            await _refused(client, "/admin/v1/routes", {"alias": name, "base": "fake-model"})
            await _refused(
                client, "/admin/v1/adapters",
                {"upload": "0" * 32, "base": "fake-model", "name": name},
            )  # fmt: skip
            text = "permit (principal, action, resource);"
            await _refused(client, "/admin/v1/policies", {"name": name, "text": text})
            await _refused(client, "/admin/v1/keys", {"name": "x", "models": [name]})
            await _refused(client, "/admin/v1/keys", {"name": "x", "certificates": [name]})
        await _refused(client, "/admin/v1/tenants", {"name": "Acme"})
        assert _state(world) == before


async def test_what_looks_like_a_name_is_not_found_under_it(tmp_path: Path) -> None:
    async with running(_stock(tmp_path / "home")) as world, world.http() as client:
        made = await client.post("/admin/v1/tenants", json={"name": _ACME})
        assert made.status_code == 201
        await client.post("/admin/v1/routes", json={"alias": _ACME, "base": "fake-model"})
        assert (await client.get(f"/admin/v1/tenants/{_ACME}")).is_success
        assert (await client.get(f"/admin/v1/routes/{_ACME}")).is_success
        for name in [*LOOK_ALIKES, "Acme", "ACME"]:
            place = quote(name, safe="")
            for path in (f"tenants/{place}", f"routes/{place}", f"adapters/{place}",
                         f"keys?tenant={place}", f"usage?tenant={place}"):  # fmt: skip
                answer = await client.get(f"/admin/v1/{path}")
                assert answer.status_code == 404, (path, answer.text)
            answer = await client.post("/v1/chat/completions", json=asked("x", model=name))
            assert answer.status_code == 404, name
        assert (await client.post("/v1/chat/completions", json=asked("x", model=_ACME))).is_success


def _state(world: Running) -> object:
    store, tenant = world.gateway.store, world.tenant_id
    return (
        store.tenants(), store.keys(tenant), store.routes(tenant, Environment.DEV),
        store.every_policy(),
    )  # fmt: skip
