"""What one tenant sent is no secret if another can tell it by how soon an answer begins.

Tenant A sends a secret; then B guesses, once rightly and once wrongly, in an order that a
coin decides, and so does A itself, who must see the difference. How often the right guess
was answered sooner is the statistic: the AUC of what stood side by side, 0.5 for somebody
who learns nothing. Nothing here depends on how fast the machine is, or how busy.
"""

import random
import string
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from freehold.cli.wiring.routes import managed_routes
from freehold.core.binding import Environment, Scope
from freehold.operate.doctor.timing import furthest
from freehold.secure.keys import KeyRequest
from tests.harness import Running, asked
from tests.serve.kinds import Real

_ALARM = 1e-6  # how often the test may fail where nothing can be learnt, at most
_SIGHT = 1e-3  # how often something is seen where there is nothing; a busy machine blurs it
_LENGTH = 500  # letters of a secret, each about a token


@asynccontextmanager
async def _tenants(folder: Path) -> AsyncIterator[tuple[httpx2.AsyncClient, httpx2.AsyncClient]]:
    async with Real().running(folder) as world, world.http() as ours, _other(world) as theirs:
        yield ours, theirs


@asynccontextmanager
async def _other(world: Running) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of another tenant, which has the base under the same name."""
    gateway = world.gateway
    gateway.store.add_tenant("ten_other", "other", 1)
    scopes = frozenset({Scope.INFER})
    wanted = KeyRequest("ten_other", Environment.DEV, "theirs", scopes)
    _, key = gateway.keyring.mint(wanted)
    assert key is not None
    cards = list(gateway.cards.values())
    routes = managed_routes("ten_other", gateway.settings, cards, gateway.pools, 1)
    gateway.store.put_routes("ten_other", Environment.DEV, routes)
    headers = {"authorization": f"Bearer {key.reveal()}"}
    async with httpx2.AsyncClient(base_url=world.url, headers=headers, timeout=30) as client:
        yield client


async def _first_token_s(client: httpx2.AsyncClient, secret: str) -> float:
    body = asked(secret, stream=True, max_tokens=1)
    begun = time.perf_counter()
    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        assert answer.status_code == 200
        parts = answer.aiter_bytes()
        await anext(parts)
        took = time.perf_counter() - begun
        async for _ in parts:
            pass
    return took


class _Chance(random.Random):
    def secret(self) -> str:
        return "".join(self.choices(string.ascii_lowercase + "   ", k=_LENGTH))


async def _aucs(folder: Path, rounds: int) -> dict[str, float]:
    """By who guessed: the part of the rounds in which the right guess was the sooner one."""
    chance = _Chance(20)
    won = {"same tenant": 0.0, "other tenant": 0.0}
    async with _tenants(folder) as (ours, theirs):
        for _ in range(rounds):
            secret = chance.secret()
            await _first_token_s(ours, secret)
            guesses: list[tuple[str, httpx2.AsyncClient, str]] = [
                (who, client, guess)
                for who, client in (("same tenant", ours), ("other tenant", theirs))
                for guess in (secret, chance.secret())
            ]
            chance.shuffle(guesses)
            took: dict[tuple[str, bool], float] = {}
            for who, client, guess in guesses:
                took[who, guess is secret] = await _first_token_s(client, guess)
            for who in won:
                won[who] += took[who, True] < took[who, False]
    return {who: count / rounds for who, count in won.items()}


@pytest.mark.parametrize("rounds", [60, pytest.param(1000, marks=pytest.mark.slow)])
async def test_no_tenant_learns_from_the_first_token_what_another_sent(
    tmp_path: Path, rounds: int
) -> None:
    aucs = await _aucs(tmp_path, rounds)
    assert aucs["same tenant"] > 0.5 + furthest(rounds, _SIGHT), "the test sees kept prefixes"
    assert abs(aucs["other tenant"] - 0.5) < furthest(rounds, _ALARM)
