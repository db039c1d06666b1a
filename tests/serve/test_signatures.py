"""No engine is told of an adapter whose signature does not hold, at a start, when a route is set
or after a crash; the base and the adapters beside it go on."""

import os
import signal
from pathlib import Path

from sqlalchemy import update

from freehold.core.binding import Environment, Scope
from freehold.secure.keys import KeyRequest
from freehold.store.backend import EVERY_TENANT
from freehold.store.sql import SqlStore
from freehold.store.tables import signatures
from tests.harness import Running, running
from tests.serve.test_adapters import (
    _add,
    _added,
    _ask,
    _code,
    _get,
    _led,
    _post,
    _set,
    _stock,
    _text,
    _until,
    _words,
)


def _changed(store: SqlStore, digest: str) -> None:
    """As somebody would who has the database and no key."""
    with store._writing(EVERY_TENANT) as connection:
        other = store.signatures(_owner(store), digest)[0].bundle.replace('"sig": "M', '"sig": "N')
        mine = signatures.c.digest == digest
        connection.execute(update(signatures).where(mine).values(bundle=other))


def _owner(store: SqlStore) -> str:
    found = store.tenant_named("default")
    assert found is not None
    return found


async def _signed(world: Running, name: str) -> None:
    answer = await _post(world, f"/admin/v1/adapters/{name}/signatures", None)
    assert answer.status_code == 201, answer.text
    assert answer.json()["holds"]


async def _abc_led(world: Running) -> dict[str, str]:
    """Adapters a, b and c, which `to-a` and so on lead to; their digests."""
    digests = {name: await _added(world, name, seed) for seed, name in enumerate("abc", 1)}
    for name in "abc":
        await _led(world, f"to-{name}", name)
    return digests


async def _says_why(world: Running, alias: str, why: str) -> None:
    refused = await _ask(world, alias)
    assert _code(refused) == (503, "adapter_unavailable")
    assert why in refused.json()["error"]["message"]


async def test_one_whose_signature_was_changed_stays_out_alone_until_it_is_signed_again(
    tmp_path: Path,
) -> None:
    async with running(_stock(tmp_path / "home")) as world:
        await world.replica.ensure_ready(20)
        digests = await _abc_led(world)
        for name in "ab":
            await _signed(world, name)
        _changed(world.gateway.store, digests["a"])
        shown = (await _get(world, "/admin/v1/adapters/a/signatures")).json()
        assert (shown["holds"], shown["signatures"][0]["holds"]) == (False, False)
        assert "changed" in shown["kept_out"]

        pid = world.replica.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

        async def is_back() -> bool:
            return world.replica.is_ready and world.replica.pid != pid

        await _until(is_back)
        await _says_why(world, "to-a", "its signature is not by the key of this installation, or")
        for name in "bc":
            assert _text(await _ask(world, f"to-{name}")) == _words("hello", digests[name])
        assert _text(await _ask(world, "fake-model")) == _words("hello", None)

    async with running(tmp_path / "home") as world:
        await world.replica.ensure_ready(20)
        await _says_why(world, "to-a", "its signature is not by the key of this installation, or")
        await _let_in_by_a_signature(world, digests["a"])


async def _let_in_by_a_signature(world: Running, digest: str) -> None:
    """The adapter `a`, which no route may lead to before."""
    refused = await _set(world, "again", "a")
    assert refused.json()["error"]["code"] == "file_refused"
    await _signed(world, "a")
    assert _text(await _ask(world, "to-a")) == _words("hello", digest)


async def test_where_signatures_are_required_no_other_adapter_serves(tmp_path: Path) -> None:
    async with running(_stock(tmp_path / "home")) as world:
        await world.replica.ensure_ready(20)
        digest = await _added(world, "early")
        await _led(world, "before", "early")
    async with running(tmp_path / "home", supply={"require_signature": ["dev"]}) as world:
        await world.replica.ensure_ready(20)
        await _says_why(world, "before", "it is not signed, and dev takes what is signed alone")
        refused = await _set(world, "after", "early")
        assert "cannot be served: it is not signed" in refused.json()["error"]["message"]
        await _signed(world, "early")
        await _led(world, "after", "early")
        for alias in ("before", "after"):
            assert _text(await _ask(world, alias)) == _words("hello", digest)


def _prod(world: Running) -> str:
    scopes = frozenset({Scope.INFER, Scope.ADMIN})
    _, key = world.gateway.keyring.mint(
        KeyRequest(world.tenant_id, Environment.PROD, "prod", scopes)
    )
    assert key is not None
    return key.reveal()


async def test_what_one_owner_may_not_use_another_goes_on_with(tmp_path: Path) -> None:
    """The same weights, in two environments of which one requires a signature."""
    async with running(_stock(tmp_path / "home")) as world:
        await world.replica.ensure_ready(20)
        prod, digest = _prod(world), await _added(world, "a")
        await _led(world, "bot", "a")
        assert (await _add(world, "a", key=prod)).status_code == 201
        body = {"alias": "bot", "base": "fake-model", "adapter": "a", "force": "a test"}
        assert (await _post(world, "/admin/v1/routes", body, prod)).status_code == 200
    async with running(tmp_path / "home", supply={"require_signature": ["prod"]}) as world:
        await world.replica.ensure_ready(20)
        prod = _prod(world)
        assert _text(await _ask(world, "bot")) == _words("hello", digest)
        refused = await _ask(world, "bot", key=prod)
        assert _code(refused) == (503, "adapter_unavailable")
        assert "it is not signed, and prod takes" in refused.json()["error"]["message"]
        answer = await _post(world, "/admin/v1/adapters/a/signatures", None, prod)
        assert answer.status_code == 201, answer.text
        for key in (prod, None):
            assert _text(await _ask(world, "bot", key=key)) == _words("hello", digest)


async def test_a_key_that_was_changed_signs_from_then_on_and_all_are_told(tmp_path: Path) -> None:
    async with running(_stock(tmp_path / "home")) as world:
        await world.replica.ensure_ready(20)
        await _added(world, "a")
        await _signed(world, "a")
        (before,) = (await _get(world, "/admin/v1/signing-keys")).json()["data"]
        new = (await _post(world, "/admin/v1/signing-keys", None)).json()
        assert new["signs"]
        assert new["id"] != before["id"]
        await _signed(world, "a")
        shown = (await _get(world, "/admin/v1/adapters/a/signatures")).json()
        assert [each["key"] for each in shown["signatures"]] == [before["id"], new["id"]]
        assert shown["holds"]


async def test_what_a_revoked_key_signed_serves_no_more_until_somebody_signs_it(
    tmp_path: Path,
) -> None:
    async with running(_stock(tmp_path / "home")) as world:
        await world.replica.ensure_ready(20)
        digests = await _abc_led(world)
        await _signed(world, "a")
        (old,) = (await _get(world, "/admin/v1/signing-keys")).json()["data"]
        path = f"/admin/v1/signing-keys/{old['id'][:16]}/revoke"
        assert _code(await _post(world, path, {})) == (409, "conflict")
        assert (await _post(world, "/admin/v1/signing-keys", None)).status_code == 201
        await _signed(world, "b")

        later = "2999-01-31T12:00:00Z"
        assert _code(await _post(world, path, {"since": later})) == (400, "invalid_value")
        revoked = (await _post(world, path, {})).json()
        assert (revoked["id"], revoked["revoked"], revoked["invalid_since"]) == (
            old["id"], True, None
        )  # fmt: skip
        assert revoked["kept_out"] == 1
        assert revoked["adapters"] == [
            {"tenant": "default", "environment": "dev", "name": "a", "digest": digests["a"]}
        ]
        why = f"it is by the key {old['id'][:16]}, which was revoked here"
        await _says_why(world, "to-a", why)
        for name in "bc":
            assert _text(await _ask(world, f"to-{name}")) == _words("hello", digests[name])
        await _let_in_by_a_signature(world, digests["a"])


async def test_what_another_gateway_revokes_or_signs_is_followed(tmp_path: Path) -> None:
    async with running(_stock(tmp_path / "home")) as world:
        await world.replica.ensure_ready(20)
        digest = await _added(world, "a")
        await _led(world, "to-a", "a")
        await _signed(world, "a")
        gateway = world.gateway
        signatures, store = gateway.adapters.signatures, gateway.store
        store.revoke_signing_key(signatures.current, 0)
        await gateway.routes.follow_signatures()
        await _says_why(world, "to-a", "which was revoked here")
        adapter = gateway.adapters.get(_owner(store), Environment.DEV, "a")
        signatures.add(adapter, signatures.sign(adapter))
        await gateway.routes.follow_signatures()
        assert _text(await _ask(world, "to-a")) == _words("hello", digest)
