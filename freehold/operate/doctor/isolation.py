"""Whether tenants of a running gateway are apart, tried as its clients would try it.

Each check asks as a guest for what is its host's, or says what only an attacker says, and
holds the answer against that for something which nobody has. A check that could not see a
leak says so instead of passing: controls that must be noticed stand beside what must not.
"""

import asyncio
import random
import secrets
import string
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import psutil

from freehold.core.errors import Code, UserError
from freehold.operate.doctor.deployment import Deployment, Guest, Said, quoted
from freehold.operate.doctor.findings import Finding, State
from freehold.operate.doctor.timing import furthest
from freehold.serve.operations import OPEN

_ENVIRONMENTS = ("dev", "staging", "prod")
_ALARM = 1e-6  # of how many runs a fair one may be taken for a leak, at most
_LOOKED_AT = 200  # tenants, for one that has an adapter
_SECRET_LETTERS = 500  # each about a token
_REVOKED_S, _LOOK_S = 1.0, 0.02
_ALIAS = "doctor-host-model"
_PERMIT = "permit (principal, action, resource);"

_MESSAGES = [{"role": "user", "content": "x"}]

# What may be asked about by the name of something: `{}` is the name.
_Probe = tuple[str, str, Any]
_NOT_YOURS: Mapping[str, Sequence[_Probe]] = {
    "alias": (
        ("GET", "/v1/models/{}", None),
        ("POST", "/v1/chat/completions", {"model": "{}", "messages": _MESSAGES}),
        ("POST", "/v1/completions", {"model": "{}", "prompt": "x"}),
        ("POST", "/v1/embeddings", {"model": "{}", "input": "x"}),
        ("POST", "/v1/responses", {"model": "{}", "input": "x"}),
        ("GET", "/admin/v1/routes/{}", None),
        ("DELETE", "/admin/v1/routes/{}", None),
    ),
    "key": (
        ("DELETE", "/admin/v1/keys/{}", None),
        ("POST", "/admin/v1/keys/{}/rotate", {}),
        ("GET", "/admin/v1/usage?key={}", None),
    ),
    "adapter": (
        # Read only: it may be a real one's.
        ("GET", "/admin/v1/adapters/{}", None),
        ("GET", "/admin/v1/adapters/{}?environment=dev", None),
    ),
    "tenant": (
        ("GET", "/admin/v1/tenants/{}", None),
        ("PATCH", "/admin/v1/tenants/{}", {"isolation": "dedicated"}),
        ("DELETE", "/admin/v1/tenants/{}", None),
        ("GET", "/admin/v1/keys?tenant={}", None),
        ("POST", "/admin/v1/keys", {"name": "x", "tenant": "{}"}),
        ("GET", "/admin/v1/routes?tenant={}", None),
        ("GET", "/admin/v1/adapters?tenant={}", None),
        ("GET", "/admin/v1/usage?tenant={}", None),
        ("GET", "/admin/v1/audit?tenant={}", None),
        ("GET", "/admin/v1/requests?tenant={}", None),
        ("GET", "/admin/v1/policies?tenant={}", None),
        ("POST", "/admin/v1/policies", {"name": "x", "text": _PERMIT, "tenant": "{}"}),
    ),
    "policy": (("DELETE", "/admin/v1/policies/{}", None),),
}  # fmt: skip
# Of the shape and length of what there is, and nobody's.
_ABSENT = {
    "alias": "doctor-none-model", "key": f"key_{'0' * 26}", "adapter": "doctor-none-lora",
    "policy": "doctor-none-rule",
}  # fmt: skip
_ENGINE_FIELDS: Mapping[str, Any] = {
    "cache_salt": "x", "lora": [{"id": 0, "scale": 1}], "id_slot": 0, "cache_prompt": True,
    "adapter": "sha256:" + "0" * 64, "tenant": "x",
}  # fmt: skip
_IDENTITY_HEADERS = (
    "x-user", "x-user-id", "x-remote-user", "remote-user", "x-tenant", "x-tenant-id",
    "x-freehold-tenant", "x-forwarded-user", "x-forwarded-email", "x-auth-request-user",
    "x-organization", "x-account", "x-original-url", "x-rewrite-url", "openai-organization",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Scene:
    """`host` has a secret, `guest` wants it. `bases` are the chat models that run here."""

    deployment: Deployment
    host: Guest
    guest: Guest
    bases: Sequence[str]
    adapter: str | None  # somebody's, of whoever has one
    rounds: int
    tell: Callable[[str], None]


async def checked(
    deployment: Deployment, rounds: int, tell: Callable[[str], None]
) -> AsyncGenerator[Finding, None]:
    """Each finding when it is there; `tell` hears what is tried meanwhile. The guests are
    removed in the end, however it comes. Raises `UserError` when this credential may not
    make any, or the gateway does not answer."""
    left = await deployment.remove_left_overs()
    if left:
        tell(f"Removed {left} tenants that an earlier run left.")
    environment = await _environment(deployment)
    models = (await deployment.operate("GET", "/admin/v1/models"))["data"]
    bases = [each["name"] for each in models if each["task"] == "chat"]
    async with deployment.guests(environment) as (host, guest):
        adapter = await _some_adapter(deployment, environment)
        scene = _Scene(deployment, host, guest, bases, adapter, rounds, tell)
        for base in bases:
            for each in (host, guest):
                alias = _ALIAS if each is host else base
                wanted = {
                    "alias": _alias(alias, base, bases),
                    "base": base,
                    "tenant": each.id,
                    "environment": environment,
                }
                await deployment.operate("POST", "/admin/v1/routes", wanted)
        for name, check in _CHECKS.items():
            tell(name)
            async for finding in check(scene):
                yield finding


def _alias(alias: str, base: str, bases: Sequence[str]) -> str:
    """The host's for the first base has a fixed name, which the probes ask for."""
    return alias if alias != _ALIAS or base == bases[0] else f"{_ALIAS}-{bases.index(base)}"


async def _environment(deployment: Deployment) -> str:
    """The first that this gateway serves."""
    refused: UserError | None = None
    for each in _ENVIRONMENTS:
        try:
            await deployment.operate("GET", f"/admin/v1/keys?environment={each}")
        except UserError as error:
            refused = error
            continue
        return each
    raise refused or UserError(Code.INTERNAL, "No environment is served.")


async def _some_adapter(deployment: Deployment, environment: str) -> str | None:
    for tenant in (await deployment.operate("GET", "/admin/v1/tenants"))["data"][:_LOOKED_AT]:
        where = f"tenant={quoted(tenant['id'])}&environment={environment}&limit=1"
        found = (await deployment.operate("GET", f"/admin/v1/adapters?{where}"))["data"]
        if found:
            return str(found[0]["name"])
    return None


async def _closed_paths(scene: _Scene) -> AsyncIterator[Finding]:
    ask = scene.deployment.ask
    document = orjson.loads((await ask(scene.host.key, "GET", "/openapi.json")).text)
    open_, tried = [], 0
    for path, operations in document["paths"].items():
        for method in operations:
            is_open = (method.upper(), path) in OPEN
            if is_open or method not in ("get", "post", "patch", "put", "delete"):
                continue
            asked = path.replace("{", "").replace("}", "")
            said = await ask(None, method.upper(), asked)
            tried += 1
            if said.status != 401:
                open_.append(f"{method.upper()} {path}")
    foreign = await ask(None, "GET", "/healthz", headers={"host": "rebinding.example"})
    if foreign.status != 421:
        open_.append("a foreign Host header")
    yield _finding(
        "unauthenticated paths are closed",
        not open_,
        "Nothing but health, metrics and the way to log in answers without a key, and no foreign "
        "Host header.",
        f"Answers without a key: {', '.join(open_[:5])}.",
        f"{tried} operations",
    )


async def _not_yours(scene: _Scene) -> AsyncIterator[Finding]:
    deployment, host, guest = scene.deployment, scene.host, scene.guest
    own = await deployment.ask(host.key, "GET", f"/admin/v1/keys?tenant={host.id}")
    mark = "doctor-host-rule"
    policy = {"name": mark, "text": _PERMIT, "tenant": host.id}
    has_policy = await _may(deployment.operate("POST", "/admin/v1/policies", policy))
    names = {
        "alias": [_ALIAS] if scene.bases else [],
        "key": [host.key_id],
        "adapter": [] if scene.adapter is None else [scene.adapter],
        "tenant": [host.id, host.name],
        "policy": [mark] if has_policy else [],
    }
    differing, tried = [], 0
    for kind, probes in _NOT_YOURS.items():
        for name in names[kind]:
            absent = _absent(kind, name)
            for probe in probes:
                tried += 1
                there = await _probed(deployment, guest.key, probe, name)
                nowhere = await _probed(deployment, guest.key, probe, absent)
                if there != nowhere:
                    differing.append(f"{probe[0]} {probe[1]} ({kind})")
    still = await deployment.ask(host.key, "GET", f"/admin/v1/keys?tenant={host.id}")
    if (own.status, own.text) != (still.status, still.text) or not own.is_success:
        differing.append("the keys of the other tenant, which are not as they were")
    yield _finding(
        "what is another tenant's is not there",
        not differing,
        "Another tenant's keys, routes, policies, usage and records are answered as what "
        "nobody has.",
        f"Answered otherwise than what nobody has: {', '.join(differing[:5])}.",
        f"{tried} pairs",
    )


async def _same_time(scene: _Scene) -> AsyncIterator[Finding]:
    """Paired, in an order that a coin decides; the control is a route of one's own."""
    ask, key = scene.deployment.ask, scene.guest.key
    check = "another tenant's takes as long as none"
    if not scene.bases:
        yield _not_applicable(check, "No model runs here, so there is no route to ask for.")
        return
    rounds = max(scene.rounds * 5, 100)
    paths = {"theirs": _ALIAS, "nobody's": _ABSENT["alias"]}
    won = 0
    for _ in range(rounds):
        took: dict[str, float] = {}
        for name in random.sample(sorted(paths), 2):
            took[name] = (await ask(key, "GET", f"/v1/models/{paths[name]}")).took_s
        won += took["theirs"] < took["nobody's"]
    auc, bound = won / rounds, furthest(rounds, _ALARM)
    yield _finding(
        check,
        abs(auc - 0.5) < bound,
        "The time of an answer does not tell whether another tenant has an alias.",
        "The time of an answer tells whether another tenant has an alias.",
        f"AUC {auc:.2f} in {rounds} pairs, {0.5 - bound:.2f} to {0.5 + bound:.2f} is chance",
    )


async def _canaries(scene: _Scene) -> AsyncIterator[Finding]:
    check = "no answer holds what another tenant sent"
    if not scene.bases:
        yield _not_applicable(check, "No model runs here that could mix answers up.")
        return
    deployment, host, guest = scene.deployment, scene.host, scene.guest
    found, answers, failed = set[str](), 0, 0
    canaries = []
    for at, base in enumerate(scene.bases):
        alias = _alias(_ALIAS, base, scene.bases)
        for round_ in range(3):
            scene.tell(f"{check}: {base}, round {round_ + 1} of 3")
            canary = f"canary-{secrets.token_hex(8)}"
            canaries.append(canary)
            asked: list[Awaitable[Said]] = []
            for turn in range(8):
                streams = bool((turn + at) % 2)
                text = f"Repeat the code word {canary} and nothing else."
                asked.append(deployment.chat(host.key, alias, text, stream=streams))
                asked.append(deployment.chat(guest.key, base, f"Count to {turn + 3}."))
            said = await asyncio.gather(*asked)
            for theirs in said[1::2]:
                answers += 1
                failed += not theirs.is_success
                if any(each in theirs.text for each in canaries):
                    found.add(f"an answer of {base}")
    for path in ("/v1/models", "/admin/v1/keys", "/admin/v1/usage", "/admin/v1/requests",
                 "/admin/v1/audit", "/metrics", "/openapi.json"):  # fmt: skip
        said_there = await deployment.ask(guest.key, "GET", path)
        if any(each in said_there.text for each in (*canaries, host.id, host.name, _ALIAS)):
            found.add(path)
    if failed == answers:
        yield Finding(check, State.FAIL, "Every request failed, so nothing was tried: see the log.")
        return
    yield _finding(
        check,
        not found,
        "What one tenant sends is in no answer, list or metric that another gets.",
        f"What another tenant sent or has is in {', '.join(sorted(found))}.",
        f"{answers} answers beside {answers} requests with canaries, {failed} failed",
    )


async def _prefix_times(scene: _Scene) -> AsyncIterator[Finding]:
    for base in scene.bases:
        yield await _prefix_time(scene, base)
    if not scene.bases:
        yield _not_applicable("kept prefixes tell nobody", "No model runs here.")


async def _prefix_time(scene: _Scene, base: str) -> Finding:
    """The host sends a secret; then host and guest guess, once rightly and once wrongly, in an
    order that a coin decides. The host must see the difference, or nobody could."""
    check, deployment, rounds = (
        f"kept prefixes tell nobody ({base})",
        scene.deployment,
        scene.rounds,
    )
    who = {
        "own": (scene.host.key, _alias(_ALIAS, base, scene.bases)),
        "other": (scene.guest.key, base),
    }
    chance, won, cached = random.SystemRandom(), {"own": 0, "other": 0}, 0
    for at in range(rounds):
        scene.tell(f"{check}: round {at + 1} of {rounds}")
        secret = _secret(chance)
        await deployment.first_token_s(*who["own"], secret)
        guesses = [(name, guess) for name in who for guess in (secret, _secret(chance))]
        chance.shuffle(guesses)
        took: dict[tuple[str, bool], float] = {}
        for name, guess in guesses:
            took[name, guess is secret] = await deployment.first_token_s(*who[name], guess)
        for name in won:
            won[name] += took[name, True] < took[name, False]
    cached = _cached_tokens(await deployment.chat(*who["own"], secret))
    own, other, bound = won["own"] / rounds, won["other"] / rounds, furthest(rounds, _ALARM)
    measured = (
        f"AUC {other:.2f} for another tenant, {own:.2f} for one's own prompts, in {rounds} rounds; "
        f"{0.5 - bound:.2f} to {0.5 + bound:.2f} is chance"
    )
    if abs(other - 0.5) >= bound:
        said = "Another tenant can tell by the time of an answer what was sent."
        return Finding(check, State.FAIL, said, measured)
    if own >= 0.5 + bound:
        said = "Kept prefixes are seen by who sent them, and by nobody else."
        return Finding(check, State.PASS, said, measured)
    if cached:
        said = (
            f"The engine found {cached} kept tokens, but their time was not noticed: try again "
            "with more --rounds on a quieter machine."
        )
        return Finding(check, State.FAIL, said, measured)
    said = "The engine keeps no prefixes: not even who sent a prompt is answered sooner."
    return Finding(check, State.NOT_APPLICABLE, said, measured)


def _secret(chance: random.Random) -> str:
    return "".join(chance.choices(string.ascii_lowercase + "   ", k=_SECRET_LETTERS))


def _cached_tokens(said: Said) -> int:
    try:
        details = orjson.loads(said.text)["usage"]["prompt_tokens_details"]
        return int(details["cached_tokens"] or 0)
    except (ValueError, KeyError, TypeError):
        return 0


async def _unknown_aliases(scene: _Scene) -> AsyncIterator[Finding]:
    """Also not what engines, other tenants or file systems call something."""
    check = "an unknown alias is never the base"
    deployment, guest = scene.deployment, scene.guest
    own = scene.bases[0] if scene.bases else "smollm2"
    digests = {route["base_digest"] for route in await _routes(deployment, guest)}
    names = [
        _ALIAS, "doctor-none-model", f"{own} ", f" {own}", own.upper(), f"{own}\u200b",
        own.replace("o", "\u043e").replace("a", "\u0430"), f"../{own}", f"{own}/..", f"/{own}",
        f"{own}@{scene.host.id}", f"{own}@{guest.id}", f"{own}:latest", "default", "*", "",
        *(digest for digest in digests if digest),
    ]  # fmt: skip
    answered = []
    for name in dict.fromkeys(each for each in names if each != own):
        said = await deployment.chat(guest.key, name, "x")
        if said.status not in (400, 404):
            answered.append(repr(name))
    yield _finding(
        check,
        not answered,
        "Only a tenant's own aliases, spelled exactly, are answered.",
        f"Answered or failed otherwise than as not there: {', '.join(answered[:5])}.",
        f"{len(names)} names",
    )


async def _routes(deployment: Deployment, guest: Guest) -> list[dict[str, Any]]:
    said = await deployment.ask(guest.key, "GET", "/admin/v1/routes")
    found: list[dict[str, Any]] = orjson.loads(said.text)["data"] if said.is_success else []
    return found


async def _engine_fields(scene: _Scene) -> AsyncIterator[Finding]:
    check = "engine fields are not a client's"
    if not scene.bases:
        yield _not_applicable(check, "No model runs here.")
        return
    taken = []
    for name, value in _ENGINE_FIELDS.items():
        said = await scene.deployment.chat(scene.guest.key, scene.bases[0], "x", **{name: value})
        if said.status != 400:
            taken.append(name)
    yield _finding(
        check,
        not taken,
        "Fields that steer an engine's cache or adapters are refused.",
        f"Not refused: {', '.join(taken)}.",
        f"{len(_ENGINE_FIELDS)} fields",
    )


async def _identity_headers(scene: _Scene) -> AsyncIterator[Finding]:
    deployment, guest = scene.deployment, scene.guest
    plain = await deployment.ask(guest.key, "GET", "/admin/v1/keys")
    moved = []
    for name in _IDENTITY_HEADERS:
        for value in (scene.host.id, scene.host.name, "admin"):
            said = await deployment.ask(guest.key, "GET", "/admin/v1/keys", headers={name: value})
            if (said.status, said.text) != (plain.status, plain.text):
                moved.append(name)
    yield _finding(
        "identity headers change nothing",
        not moved and plain.is_success,
        "Who asks is what the key says, whatever headers say.",
        f"Another answer with: {', '.join(sorted(set(moved))) or 'no header at all'}.",
        f"{len(_IDENTITY_HEADERS) * 3} tries",
    )


async def _environments(scene: _Scene) -> AsyncIterator[Finding]:
    check = "a key acts in its own environment only"
    deployment, host = scene.deployment, scene.host
    other = []
    for each in _ENVIRONMENTS:
        where = f"/admin/v1/keys?environment={each}"
        if each != host.environment and await _may(deployment.operate("GET", where)):
            other.append(each)
    crossed = []
    for each in _ENVIRONMENTS:
        if each == host.environment:
            continue
        said = await deployment.ask(host.key, "GET", f"/admin/v1/keys?environment={each}")
        if said.status != 403:
            crossed.append(f"keys of {each}")
    for each in other if scene.bases else ():
        alias = f"doctor-{each}-model"
        wanted = {"alias": alias, "base": scene.bases[0], "tenant": host.id, "environment": each}
        await deployment.operate("POST", "/admin/v1/routes", wanted)
        said = await deployment.chat(host.key, alias, "x")
        if said.status != 404:
            crossed.append(f"models of {each}")
    yield _finding(
        check,
        not crossed,
        f"A key of {host.environment} reaches nothing of another environment.",
        f"A key of {host.environment} reaches {', '.join(crossed)}.",
        f"{len(other) + 1} environments served here",
    )


async def _revocation(scene: _Scene) -> AsyncIterator[Finding]:
    deployment, host = scene.deployment, scene.host
    made = await deployment.key_for(host.id, host.environment, "infer")
    if not (await deployment.ask(made["key"], "GET", "/v1/models")).is_success:
        yield Finding("a revoked key is refused", State.FAIL, "A new key is not accepted at all.")
        return
    path = f"/admin/v1/keys/{made['id']}?tenant={host.id}&environment={host.environment}"
    begun = time.perf_counter()
    await deployment.operate("DELETE", path)
    while (await deployment.ask(made["key"], "GET", "/v1/models")).is_success:
        if time.perf_counter() - begun > 10 * _REVOKED_S:
            break
        await asyncio.sleep(_LOOK_S)
    took = time.perf_counter() - begun
    yield _finding(
        "a revoked key is refused",
        took <= _REVOKED_S,
        "A revoked key is refused within a second.",
        "A revoked key is still heard after a second.",
        f"{took * 1000:.0f} ms",
    )


async def _sockets(scene: _Scene) -> AsyncIterator[Finding]:
    check = "engines are reached by the gateway alone"
    pools = (await scene.deployment.operate("GET", "/admin/v1/status"))["pools"]
    pids = [each["pid"] for pool in pools for each in pool["replicas"] if each.get("pid")]
    reachable, seen = list[str](), 0
    for pid in pids:
        try:
            leader = psutil.Process(pid)
            for process in (leader, *leader.children(recursive=True)):
                places, ports = _listening(process)
                seen += len(places)
                reachable += [f"port {port} of process {process.pid}" for port in ports]
                reachable += [str(place) for place in places if not _is_private(place)]
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    if not seen and not reachable:
        yield _not_applicable(check, "No engine runs on this machine under this user.")
        return
    yield _finding(
        check,
        not reachable,
        "Engines listen on sockets in folders of this user alone, and on no port.",
        f"Others of this machine reach {', '.join(reachable[:5])}.",
        f"{seen} sockets",
    )


def _listening(process: psutil.Process) -> tuple[list[Path], list[int]]:
    """The paths of unix sockets, and the ports that are no unix socket's."""
    places = [
        Path(str(each.laddr))
        for each in process.net_connections("unix")
        if isinstance(each.laddr, str) and each.laddr.startswith("/")
    ]
    ports = [
        each.laddr.port
        for each in process.net_connections("inet")
        if each.status == psutil.CONN_LISTEN and hasattr(each.laddr, "port")
    ]
    return places, ports


def _is_private(place: Path) -> bool:
    """Whether some folder on the way lets nobody else through."""
    return any(folder.exists() and folder.stat().st_mode & 0o011 == 0 for folder in place.parents)


_CHECKS: Mapping[str, Callable[[_Scene], AsyncIterator[Finding]]] = {
    "paths without a key": _closed_paths,
    "what is another tenant's": _not_yours,
    "identity headers": _identity_headers,
    "environments": _environments,
    "revocation": _revocation,
    "unknown aliases": _unknown_aliases,
    "engine fields": _engine_fields,
    "answers side by side": _canaries,
    "times": _same_time,
    "kept prefixes": _prefix_times,
    "engines": _sockets,
}


def _absent(kind: str, name: str) -> str:
    """As long as `name`, so that an answer that quotes it is."""
    if kind == "tenant":
        return f"{name[:-6]}zzzzzz"
    return _ABSENT[kind]


async def _probed(deployment: Deployment, key: str, probe: _Probe, name: str) -> tuple[int, str]:
    method, path, body = probe
    if isinstance(body, dict):
        body = {field: name if value == "{}" else value for field, value in body.items()}
    said = await deployment.ask(key, method, path.replace("{}", quoted(name)), body)
    return said.status, said.text.replace(name, "NAME")


async def _may(asking: Awaitable[Any]) -> bool:
    try:
        await asking
    except UserError as error:
        if error.code is Code.GATEWAY_NOT_RUNNING:
            raise
        return False
    return True


def _finding(check: str, holds: bool, good: str, bad: str, measured: str) -> Finding:
    return Finding(check, State.PASS if holds else State.FAIL, good if holds else bad, measured)


def _not_applicable(check: str, said: str) -> Finding:
    return Finding(check, State.NOT_APPLICABLE, said)
