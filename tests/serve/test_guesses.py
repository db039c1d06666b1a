"""Wrong keys over the network: heard for a while, answered 429 after, and whoever sends them,
the right keys of others go on. Addresses are those of the loopback network: each is a peer."""

import asyncio
import itertools
from pathlib import Path
from typing import Any

import httpx2

from freehold.config.schema import LimitSettings
from freehold.core.binding import Scope
from tests.harness import Running, running

_A_MINUTE = 30
_LIMITS = LimitSettings(wrong_keys_a_minute=_A_MINUTE)
_GUESSES, _CONNECTIONS = 10_000, 20


def _client(world: Running, peer: str = "127.0.0.1") -> httpx2.AsyncClient:
    transport = httpx2.AsyncHTTPTransport(local_address=peer, verify=False)
    return httpx2.AsyncClient(base_url=world.url, transport=transport, timeout=60)


async def _get(
    client: httpx2.AsyncClient, key: str, path: str = "/v1/models", **headers: str
) -> httpx2.Response:
    return await client.get(path, headers={"authorization": f"Bearer {key}", **headers})


def _code(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def _guess_raw(world: Running, count: int, codes: dict[bytes, int]) -> None:
    """Wrong keys on one connection, as fast as they are answered."""
    host, port = world.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    for number in range(count):
        key = b"fh_dev_%026d_%b" % (number, b"a" * 52)
        writer.write(
            b"GET /v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer %b\r\n"
            b"x-forwarded-for: 192.0.2.%d\r\n\r\n" % (key, number % 250)
        )
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
        await reader.readexactly(length)
        status = head.split(b" ")[1]
        codes[status] = codes.get(status, 0) + 1
        if status == b"429":
            assert any(line.startswith(b"retry-after: ") for line in lines)
    writer.close()


async def test_ten_thousand_wrong_keys_are_refused_and_shut_nobody_out(tmp_path: Path) -> None:
    """The header that each guess invents changes nothing, and nothing grows with them."""
    async with running(tmp_path, limits=_LIMITS) as world:
        fresh = world.mint(Scope.INFER)
        async with _client(world) as near, _client(world, "127.0.0.2") as far:
            assert (await _get(near, world.key)).is_success
            codes: dict[bytes, int] = {}
            asked = [
                _guess_raw(world, _GUESSES // _CONNECTIONS, codes) for _ in range(_CONNECTIONS)
            ]
            await asyncio.gather(*asked)
            assert set(codes) == {b"401", b"429"}
            assert sum(codes.values()) == _GUESSES
            # As many as it takes, and those that were allowed again meanwhile.
            assert _A_MINUTE <= codes[b"401"] < _GUESSES // 4

            assert _code(await _get(near, fresh)) == (429, "too_many_attempts")
            assert (await _get(far, fresh)).is_success, "from another address"
            assert (await _get(near, world.key)).is_success, "it was accepted from here before"
            world.gateway.keyring.changed()
            assert (await _get(near, world.key)).is_success, "also when it is looked up again"
        throttle = world.gateway.keyring._throttle
        assert len(throttle._peers) == 1
        assert len(throttle._ids) <= 10_000
        refused = world.gateway.metrics.refused.labels("too_many_attempts")._value.get()
        assert refused == codes[b"429"] + 1


async def test_a_header_says_where_a_request_is_from_only_if_a_trusted_proxy_sends_it(
    tmp_path: Path,
) -> None:
    trusted = {"trusted_proxies": ["127.0.0.2", "127.0.0.3"]}
    async with running(tmp_path, limits=_LIMITS, **trusted) as world:
        key = world.mint(Scope.INFER, networks=frozenset({"192.0.2.0/24"}))
        async with _client(world) as anybody, _client(world, "127.0.0.2") as proxy:
            said: dict[str, Any] = {"x-forwarded-for": "192.0.2.7"}
            refused = await _get(anybody, key, **said)
            assert _code(refused) == (403, "address_not_allowed")
            assert (await _get(proxy, key, **said)).is_success
            assert _code(await _get(proxy, key)) == (403, "address_not_allowed")
            for forwarded, is_let_in in (
                ("203.0.113.9, 192.0.2.7", True), ("192.0.2.7, 203.0.113.9", False),
                ("192.0.2.7, 127.0.0.3", True), ("192.0.2.7, nobody", False),
            ):  # fmt: skip
                answer = await _get(proxy, key, **{"x-forwarded-for": forwarded})
                assert answer.is_success == is_let_in, forwarded
            for name in ("x-real-ip", "forwarded", "x-client-ip", "cf-connecting-ip"):
                answer = await _get(proxy, key, **{name: "192.0.2.7"})
                assert _code(answer) == (403, "address_not_allowed"), name


async def test_behind_a_trusted_proxy_each_client_is_counted_by_itself(tmp_path: Path) -> None:
    async with (
        running(tmp_path, limits=_LIMITS, trusted_proxies=["127.0.0.0/8"]) as world,
        _client(world) as proxy,
    ):
        guesser, owner = {"x-forwarded-for": "192.0.2.66"}, {"x-forwarded-for": "192.0.2.7"}
        codes = [(await _get(proxy, f"wrong-{n}", **guesser)).status_code for n in range(50)]
        assert codes[:_A_MINUTE] == [401] * _A_MINUTE
        assert codes[-1] == 429
        assert (await _get(proxy, world.key, **owner)).is_success
        assert (await _get(proxy, world.key, **guesser)).status_code == 429


async def test_headers_about_who_one_is_change_nothing(tmp_path: Path) -> None:
    names = (
        "x-user", "x-tenant", "x-freehold-tenant", "x-forwarded-user", "x-remote-user",
        "x-forwarded-for", "x-real-ip", "forwarded", "x-forwarded-host", "x-environment",
    )  # fmt: skip
    values = ("ten_other", "prod", "admin", "192.0.2.7", "192.0.2.7, 10.0.0.1")
    async with running(tmp_path) as world, _client(world) as client:
        key = world.mint(Scope.INFER, Scope.ADMIN)
        plain = await _get(client, key, "/admin/v1/keys")
        for name, value in itertools.product(names, values):
            answer = await _get(client, key, "/admin/v1/keys", **{name: value})
            assert (answer.status_code, answer.json()) == (200, plain.json())
            operates = await _get(client, key, "/admin/v1/status", **{name: value})
            assert _code(operates) == (403, "insufficient_permissions")


async def test_a_key_is_used_from_its_networks_only(tmp_path: Path) -> None:
    async with running(tmp_path, limits=_LIMITS) as world:
        body = {"name": "x", "networks": ["127.0.0.2", "127.0.1.0/24"]}
        async with world.http() as admin:
            made = (await admin.post("/admin/v1/keys", json=body)).json()
        assert made["networks"] == ["127.0.0.2/32", "127.0.1.0/24"]
        for peer, is_let_in in (
            ("127.0.0.1", False), ("127.0.0.2", True), ("127.0.0.3", False), ("127.0.1.9", True),
            ("127.0.0.1", False),
        ):  # fmt: skip
            async with _client(world, peer) as client:
                answer = await _get(client, made["key"])
                assert answer.is_success == is_let_in, peer
                if not is_let_in:
                    assert _code(answer) == (403, "address_not_allowed")
