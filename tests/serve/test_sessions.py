"""Sessions, roles and tokens end at once, in every process, with what they had begun."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from freehold.cli.reaching import reach
from freehold.config.home import Home
from freehold.config.schema import LimitSettings
from freehold.core.binding import Environment, Role, Scope
from freehold.core.policy import Policy
from freehold.core.role import RoleGrant
from freehold.core.session import SessionKind
from freehold.secure.keys import KeyRequest
from tests.harness import Running, asked
from tests.issuer import AUDIENCE, serving, token
from tests.serve.people import CLIENT, Place, bearer, command_session, people, place_of

pytestmark = pytest.mark.asyncio(loop_scope="module")
place = place_of()

_PATH = "/admin/v1/sessions"
_ROLES = "/admin/v1/roles"
_NO_PEOPLE = "forbid (principal is Freehold::Person, action, resource);"


async def _ask(world: Running, secret: str, method: str = "GET", path: str = "/v1/models",
               body: Any = None, **query: Any) -> httpx2.Response:  # fmt: skip
    async with httpx2.AsyncClient(base_url=world.url, timeout=30) as http:
        return await http.request(method, path, json=body, params=query, headers=bearer(secret))


def _code(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


@contextlib.asynccontextmanager
async def _stream(world: Running, secret: str) -> AsyncIterator[AsyncIterator[bytes]]:
    """A long answer, after its first bytes."""
    body = asked("[[slow 0.05]] [[tokens 2000]] go on", stream=True, max_tokens=2000)
    async with (
        httpx2.AsyncClient(base_url=world.url, timeout=30, headers=bearer(secret)) as http,
        http.stream("POST", "/v1/chat/completions", json=body) as answer,
    ):
        chunks = answer.aiter_raw()
        await anext(chunks)
        yield chunks


async def _is_cut(world: Running, secret: str, change: Callable[[], Awaitable[None]]) -> bool:
    seen = b""
    async with _stream(world, secret) as chunks:
        await change()
        async for chunk in chunks:
            seen += chunk
    return b"access_ended" in seen and b"[DONE]" not in seen


async def test_a_commands_login_is_exchanged_once_for_a_session_that_is_used_like_a_key(
    place: Place,
) -> None:
    world, issuer = place
    shown = token(issuer, aud=CLIENT)
    made = await _ask(world, shown, "POST", _PATH)
    assert made.status_code == 201
    assert _code(await _ask(world, shown, "POST", _PATH)) == (409, "conflict")
    secret = made.json()["secret"]
    assert secret.startswith("fhs_")
    assert (await _ask(world, secret)).is_success
    assert (await _ask(world, secret, path="/admin/v1/whoami")).json()["session"] == (
        made.json()["id"]
    )
    assert _code(await _ask(world, shown)) == (401, "invalid_token"), "it is no key itself"
    ended = await _ask(world, secret, "DELETE", f"{_PATH}/current")
    assert ended.json()["ended_at"]
    assert _code(await _ask(world, secret)) == (401, "invalid_session")


@pytest.mark.parametrize("changes", [{"aud": AUDIENCE}, {"aud": [CLIENT, AUDIENCE]}, {"exp": 1}])
async def test_what_is_no_login_of_ours_becomes_no_session(
    place: Place, changes: dict[str, Any]
) -> None:
    world, issuer = place
    refused = await _ask(world, token(issuer, **{"aud": CLIENT, **changes}), "POST", _PATH)
    assert refused.status_code == 401
    for secret in (world.key, "fhs_x", "nonsense"):
        assert (await _ask(world, secret, "POST", _PATH)).status_code == 401
        assert (await _ask(world, secret, "DELETE", f"{_PATH}/current")).status_code == 401


async def test_a_revoked_session_is_refused_at_once_and_its_stream_is_cut(
    place: Place,
) -> None:
    world, issuer = place
    ada = await command_session(world, issuer, sub="ada the second")
    bob = await command_session(world, issuer, sub="bob")
    found = await _ask(world, world.key, path=_PATH, person=ada["person"])
    (listed,) = found.json()["data"]
    assert (listed["id"], "secret" in listed) == (ada["id"], False)
    assert len((await _ask(world, world.key, path=_PATH)).json()["data"]) > 1

    async def revoke() -> None:
        assert (await _ask(world, world.key, "DELETE", f"{_PATH}/{ada['id']}")).is_success

    assert await _is_cut(world, ada["secret"], revoke)
    assert _code(await _ask(world, ada["secret"])) == (401, "invalid_session")
    assert (await _ask(world, bob["secret"])).is_success
    again = await _ask(world, world.key, "DELETE", f"{_PATH}/{ada['id']}")
    assert again.is_success, "doing it again changes nothing"
    gone = await _ask(world, world.key, "DELETE", f"{_PATH}/ses_nobody")
    assert _code(gone) == (404, "not_found")


async def test_another_process_ends_sessions_within_a_second(place: Place) -> None:
    """It only sees that the count in the database has grown."""
    world, issuer = place
    ada = await command_session(world, issuer)
    assert (await _ask(world, ada["secret"])).is_success

    async def elsewhere() -> None:
        world.gateway.store.end_session(world.tenant_id, ada["id"], 1, "elsewhere")

    async with asyncio.timeout(20):
        assert await _is_cut(world, ada["secret"], elsewhere)
    assert (await _ask(world, ada["secret"])).status_code == 401


async def test_a_person_is_cut_off_with_their_sessions_and_tokens(place: Place) -> None:
    world, issuer = place
    ada = await command_session(world, issuer, sub="cy")
    old = token(issuer, sub="cy")
    unused = token(issuer, aud=CLIENT, sub="cy", jti="made before")
    assert (await _ask(world, old)).is_success

    async def cut() -> None:
        done = await _ask(world, world.key, "DELETE", _PATH, person=ada["person"])
        assert done.json() == {"person": ada["person"], "sessions_ended": 1}

    assert await _is_cut(world, old, cut)
    assert _code(await _ask(world, old)) == (401, "invalid_token")
    assert _code(await _ask(world, ada["secret"])) == (401, "invalid_session")
    assert (await _ask(world, unused, "POST", _PATH)).status_code == 401
    bob = await _ask(world, token(issuer, sub="bob"))
    assert bob.is_success
    after_s = world.gateway.clock.wall_us() / 1e6 + 1
    later = token(issuer, after_s, sub="cy")
    assert (await _ask(world, later)).is_success, "a new login counts"


async def test_all_of_a_tenant_are_cut_off_at_once(tmp_path: Path) -> None:
    async with people(tmp_path) as (world, issuer):
        for sub in ("ada", "bob"):
            await command_session(world, issuer, sub=sub)
        for query in ({}, {"all": "true", "person": "per_" + "a" * 26}, {"person": "ada"}):
            refused = await _ask(world, world.key, "DELETE", _PATH, **query)
            assert _code(refused) == (400, "invalid_value")
        before = token(issuer, sub="carol")
        done = await _ask(world, world.key, "DELETE", _PATH, all="true")
        assert done.json()["sessions_ended"] == 2
        assert (await _ask(world, before)).status_code == 401
        assert (await _ask(world, world.key)).is_success


async def test_sessions_end_by_themselves(tmp_path: Path) -> None:
    lasts = {"lifetime_h": 1, "idle_min": 5}
    async with people(tmp_path, sessions=lasts) as (world, issuer):
        made = await command_session(world, issuer)
        sessions, clock = world.gateway.sessions, world.gateway.clock
        known = sessions.cached(made["secret"], _kind(made)) or sessions.find(
            made["secret"], _kind(made)
        )
        assert known.expires_at_us - known.created_at_us == 3_600_000_000
        now = clock.wall_us()
        moved = _Later(now)
        sessions._clock = moved
        moved.at_us = now + 4 * 60_000_000  # in use, so that it goes on
        assert sessions.find(made["secret"], _kind(made)).last_used_at_us == moved.at_us
        moved.at_us += 4 * 60_000_000
        assert sessions.cached(made["secret"], _kind(made)) is None, "its use is noted first"
        sessions.find(made["secret"], _kind(made))
        moved.at_us += 5 * 60_000_000
        assert _code(await _ask(world, made["secret"])) == (401, "invalid_session")
        moved.at_us = now
        for minutes in range(4, 60, 4):
            moved.at_us = now + minutes * 60_000_000
            world.gateway.store.use_session(made["id"], moved.at_us)
        assert (await _ask(world, made["secret"])).is_success
        moved.at_us = now + 60 * 60_000_000
        world.gateway.store.use_session(made["id"], moved.at_us - 1)
        assert _code(await _ask(world, made["secret"])) == (401, "invalid_session")


class _Later:
    def __init__(self, at_us: int) -> None:
        self.at_us = at_us

    def wall_us(self) -> int:
        return self.at_us

    def monotonic_s(self) -> float:
        return self.at_us / 1e6


def _kind(made: dict[str, Any]) -> SessionKind:
    return SessionKind(made["kind"])


async def test_invented_sessions_are_guesses(tmp_path: Path) -> None:
    limits = LimitSettings(wrong_keys_a_minute=5)
    async with people(tmp_path, limits=limits) as (world, issuer):
        made = await command_session(world, issuer)
        assert (await _ask(world, made["secret"])).is_success
        found = [(await _ask(world, f"fhs_{'a' * 51}{n}")).status_code for n in range(7)]
        assert found == [401] * 5 + [429] * 2
        assert (await _ask(world, made["secret"])).is_success, "it was accepted before"


async def test_nothing_is_left_of_the_sessions_of_somebody_who_is_forgotten(place: Place) -> None:
    world, issuer = place
    made = await command_session(world, issuer, sub="dot", email="dot@example.org")
    assert (await _ask(world, made["secret"])).is_success
    gone = await _ask(world, world.key, "DELETE", f"/admin/v1/subjects/{made['person']}")
    assert gone.is_success
    assert (await _ask(world, made["secret"])).status_code == 401
    assert world.gateway.store.last_session(world.tenant_id, made["person"]) is None


# roles


async def test_a_group_has_a_role_as_long_as_it_is_granted(place: Place) -> None:
    world, issuer = place
    made = await command_session(world, issuer, groups=["new"])
    assert _code(await _ask(world, made["secret"])) == (403, "insufficient_permissions")
    given = {"group": "new", "role": "user"}
    granted = await _ask(world, world.key, "POST", _ROLES, given)
    assert granted.status_code == 201
    assert granted.json()["provider"] == issuer.url
    assert (await _ask(world, made["secret"])).is_success
    assert (await _ask(world, token(issuer, groups=["new"]))).is_success
    listed = (await _ask(world, world.key, path=_ROLES)).json()["data"]
    assert listed == [granted.json()]

    async def revoke() -> None:
        gone = await _ask(world, world.key, "DELETE", _ROLES, **given, provider="corp")
        assert gone.is_success

    assert await _is_cut(world, made["secret"], revoke)
    assert (await _ask(world, made["secret"])).status_code == 403
    for query in (given, {**given, "provider": "nobody"}):
        gone = await _ask(world, world.key, "DELETE", _ROLES, **query)
        assert _code(gone) == (404, "not_found")


async def test_taking_one_group_leaves_what_another_gives(tmp_path: Path) -> None:
    async with people(tmp_path) as (world, issuer):
        grant = RoleGrant(world.tenant_id, Environment.DEV, issuer.url, "ml", Role.USER)
        world.gateway.store.grant_role(grant)
        made = await command_session(world, issuer)

        async def revoke() -> None:
            gateway = world.gateway
            gateway.store.revoke_role(grant)
            await gateway.access.refresh()
            (running,) = gateway.watch.running()
            assert running._stopped is None
            gateway.store.put_policy(Policy("end", _NO_PEOPLE))
            await gateway.access.refresh()

        assert await _is_cut(world, made["secret"], revoke), "in the end by the policy"


def _key(world: Running, tenant_id: str, environment: Environment, *scopes: Scope,
         **more: Any) -> str:  # fmt: skip
    wanted = KeyRequest(tenant_id, environment, "x", frozenset(scopes), **more)
    _, key = world.gateway.keyring.mint(wanted)
    assert key is not None
    return key.reveal()


async def test_nobody_grants_a_role_beyond_their_own(tmp_path: Path) -> None:
    async with people(tmp_path) as (world, _):
        world.gateway.store.add_tenant("ten_other", "other", 1)
        await world.gateway.access.refresh()
        home, dev = world.tenant_id, Environment.DEV
        admin = _key(world, home, dev, Scope.ADMIN, Scope.INFER)
        operator = _key(world, home, dev, Scope.ADMIN, Scope.OPERATE)
        cases: list[tuple[str, dict[str, Any], int]] = [
            (admin, {"role": "user"}, 201),
            (admin, {"role": "admin"}, 201),
            (admin, {"role": "auditor"}, 403),
            (admin, {"role": "operator"}, 403),
            (admin, {"role": "owner"}, 403),
            (admin, {"role": "user", "environment": "prod"}, 403),
            (admin, {"role": "user", "tenant": "other"}, 404),
            (operator, {"role": "admin", "tenant": "other"}, 201),
            (operator, {"role": "operator", "tenant": "other"}, 403),
            (operator, {"role": "operator"}, 201),
            (_key(world, home, dev, Scope.INFER), {"role": "user"}, 403),
            (_key(world, home, dev, Scope.AUDIT), {"role": "auditor"}, 403),
            (_key(world, home, dev, Scope.ADMIN, Scope.INFER, models=frozenset({"x"})),
             {"role": "user"}, 403),
            (_key(world, home, dev, Scope.ADMIN, Scope.INFER, expires_at_us=2**60),
             {"role": "user"}, 403),
            (admin, {"role": "king"}, 400),
        ]  # fmt: skip
        for number, (key, body, status) in enumerate(cases):
            given = await _ask(world, key, "POST", _ROLES, {"group": "g", **body})
            assert given.status_code == status, (number, body, given.text)


async def test_a_tenants_admin_manages_that_tenant_and_sees_no_other(tmp_path: Path) -> None:
    given = {
        "tenant_claim": "org",
        "tenants": {"Acme Inc.": "acme", "Bolt": "bolt"},
        "access": [{"group": "boss", "roles": ["user", "admin"]}],
    }
    with reach.offline(Home(tmp_path / "home")) as (store, _, _):
        for name in ("acme", "bolt"):
            store.add_tenant(f"ten_{name}", name, 1)
    async with people(tmp_path / "home", provider=given) as (world, issuer):
        acme = await command_session(world, issuer, groups=["boss"], org="Acme Inc.")
        bolt = await command_session(world, issuer, groups=["boss"], org="Bolt", sub="bob")
        mine = (await _ask(world, acme["secret"], path=_PATH)).json()["data"]
        assert [each["id"] for each in mine] == [acme["id"]]
        me = (await _ask(world, acme["secret"], path="/admin/v1/whoami")).json()
        assert me["tenant"]["name"] == "acme"
        theirs = await _ask(world, acme["secret"], "DELETE", f"{_PATH}/{bolt['id']}")
        assert theirs.status_code == 404
        assert (await _ask(world, acme["secret"], "DELETE", _PATH, person=bolt["person"])).json()[
            "sessions_ended"
        ] == 0
        assert (await _ask(world, bolt["secret"], path="/admin/v1/whoami")).is_success
        role = {"group": "staff", "role": "user"}
        assert (await _ask(world, acme["secret"], "POST", _ROLES, role)).status_code == 201
        staff = {"groups": ["staff"], "sub": "cy"}
        assert (await _ask(world, token(issuer, org="Acme Inc.", **staff))).is_success
        assert (await _ask(world, token(issuer, org="Bolt", **staff))).status_code == 403
        for org in ("acme", "ten_acme", "default", "", None, ["Bolt"], ...):
            refused = await _ask(world, token(issuer, groups=["boss"], org=org))
            assert _code(refused) == (403, "insufficient_permissions"), org


async def test_a_rule_is_for_one_of_the_tenants_when_it_says_so(tmp_path: Path) -> None:
    given = {
        "access": [
            {"group": "ml", "roles": ["user"]},
            {"group": "ml", "scopes": ["admin"], "roles": ["auditor"], "tenant": "default"},
        ]
    }
    async with people(tmp_path, provider=given) as (world, issuer):
        me = await _ask(world, token(issuer), path="/admin/v1/whoami")
        assert me.json()["roles"] == ["admin", "auditor", "user"]


async def test_sessions_follow_the_settings_of_the_next_start(tmp_path: Path) -> None:
    async with serving() as issuer:
        async with people(tmp_path, issuer=issuer) as (world, _):
            made = await command_session(world, issuer)
            assert (await _ask(world, made["secret"])).is_success
        less = {"access": [{"group": "others"}]}
        async with people(tmp_path, issuer=issuer, provider=less) as (world, _):
            assert (await _ask(world, made["secret"])).status_code == 403
        gone = {"issuer": "https://login.example"}
        async with people(tmp_path, issuer=issuer, provider=gone) as (world, _):
            assert _code(await _ask(world, made["secret"])) == (401, "invalid_session")
