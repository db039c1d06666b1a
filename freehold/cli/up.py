"""`freehold up`: from nothing to a served model, and back to nothing on Ctrl-C."""

import asyncio
import contextlib
import gc
import os
import resource
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import orjson
import typer
import uvicorn
import uvloop
from rich.console import Console

from freehold.catalog.adapters import staging
from freehold.catalog.store import ModelStore
from freehold.cli import model, tls
from freehold.cli.at_rest import opening
from freehold.cli.terminal import banner, logs
from freehold.cli.terminal.output import Json, console, errors_in_a_sentence, stderr
from freehold.cli.wiring.gateway import build_gateway
from freehold.cli.wiring.pools import build_pools, clear_copies
from freehold.cli.wiring.prices import measure_prices
from freehold.cli.wiring.routes import managed_routes
from freehold.config import load
from freehold.config.home import Home, write_private
from freehold.config.schema import ServerSettings, Settings
from freehold.core.binding import Environment, Scope
from freehold.core.errors import Code, UserError
from freehold.core.event import Happening, Kind
from freehold.core.model import ModelCard
from freehold.core.secret import Secret
from freehold.deploy.pool import Pool
from freehold.secure import network
from freehold.secure.keys import KeyRequest, Keyring
from freehold.secure.witness import Witness
from freehold.serve import app, connection
from freehold.serve.gateway import Gateway
from freehold.store import fleet
from freehold.store.ledger import recover
from freehold.store.sql import SqlStore

_READY_S = 600.0
_STARTS, _LOOK_S = 3, 0.2
# The ledger's threads need the interpreter for microseconds at a time; at Python's
# default of 5 ms they waited that long for each of them behind a busy event loop.
_SWITCH_S = 0.0002
# Objects made before the next look for cycles; requests leave hardly any, and Python's
# default of 700 looked at every tenth chunk.
_COLLECT_AFTER = 20_000
_OWN_FILES = 64  # the database, the journal, logs, pipes to engines


def up(
    host: Annotated[str | None, typer.Option(envvar="HOST", help="Address to serve on.")] = None,
    port: Annotated[
        int | None, typer.Option(envvar="PORT", min=0, max=65535, help="Port; 0 takes a free one.")
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option("--model", help="A stored model to serve; repeat for several."),
    ] = None,
    no_local_models: Annotated[
        bool, typer.Option("--no-local-models", help="Serve upstreams only.")
    ] = False,
    engine: Annotated[str | None, typer.Option(help="Serve local models with this engine.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Settings instead of freehold.yaml.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Serve models behind keys and a meter, on one machine, until Ctrl-C."""
    with errors_in_a_sentence(as_json):
        home = load.home()
        overrides = {
            "server.host": host,
            "server.port": port,
            "models": models or None,
            "engines.default": engine,
        }
        if file is not None and not file.exists():
            raise UserError(Code.CONFIG_INVALID, f"{file} does not exist: name a settings file.")
        settings = load.settings(file or home.settings, overrides=overrides)
        tls.check(settings)
        with home.lock(), _bound(settings.server) as listener:
            logs.configure(home.logs, settings.log_level)
            cards = [] if no_local_models else _cards(home, settings, as_json)
            uvloop.run(_serve(home, settings, file, cards, listener, as_json))


def _told(as_json: bool) -> Console:
    """Where people are told how it goes: not where machines read the result."""
    return stderr if as_json else console


def _cards(home: Home, settings: Settings, as_json: bool) -> list[ModelCard]:
    if not settings.models:
        return [model.ensure_default(home, _told(as_json))]
    store = ModelStore(home.path)
    return [store.get(name) for name in settings.models]


@contextlib.contextmanager
def _bound(server: ServerSettings) -> Iterator[socket.socket]:
    """The listening socket, taken before anything slow, so that a port in use is
    told at once. Plain HTTP on a network is refused unless TLS ends in front: by the address
    that the name stands for, however it is written, and that is the one which is bound."""
    try:
        found = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)
        family, _, _, _, address = found[0]
        _check_clear_text(server, str(address[0]))
        listener = socket.create_server(address, family=family, backlog=2048, reuse_port=False)
    except (OSError, UnicodeError) as error:
        raise UserError(
            Code.PORT_IN_USE,
            f"Cannot listen on {server.host}:{server.port} "
            f"({getattr(error, 'strerror', None) or 'no such name'}): "
            "free the port, or choose another with --port.",
        ) from None
    with listener:
        connection.bound_unsent(listener)
        yield listener


def _check_clear_text(server: ServerSettings, address: str) -> None:
    bound = network.address(address.partition("%")[0])
    if bound is not None and bound.is_loopback:
        return
    if not server.tls_certificate and not server.tls_ends_in_front:
        raise UserError(
            Code.CONFIG_INVALID,
            f"Keys and prompts would cross the network in the clear on {server.host}: set "
            "server.tls_certificate and server.tls_key (`freehold tls init` makes a pair), or "
            "server.tls_ends_in_front when a proxy in front ends TLS.",
        )


class _Server(uvicorn.Server):
    """Leaves the signals to us: a drain is more than closing connections. It waits for
    its end instead of looking for it ten times a second, which a gateway that shares
    the cores with its engine would feel."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._ended = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        await self._ended.wait()

    def end(self) -> None:
        self._ended.set()

    def greet_again(self) -> None:
        """Ends each connection after the request that runs on it: it was let in by what does
        not count any more."""
        for each in list(self.server_state.connections):
            each.shutdown()


@dataclass(slots=True)
class _Stop:
    """The first signal asks for a drain, the second for an end at once."""

    asked: asyncio.Event
    again: asyncio.Event

    def on_signal(self) -> None:
        (self.again if self.asked.is_set() else self.asked).set()


async def _serve(
    home: Home,
    settings: Settings,
    file: Path | None,
    cards: list[ModelCard],
    listener: socket.socket,
    as_json: bool,
) -> None:
    _raise_file_limit()
    sys.setswitchinterval(_SWITCH_S)
    stop = _Stop(asyncio.Event(), asyncio.Event())
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.on_signal)
    url = _url(settings.server, listener)
    store, is_new = opening.open_store(home, settings.database)
    witness: Witness | None = None
    try:
        keyring = opening.open_keyring(home, store, may_create=is_new, settings=settings)
        if file is None:
            opening.check_settings(home, store)
        witness = opening.open_audit(home, store, settings.audit)
        store.put_back(witness.owed(store.audit_heads()))
        recover(store, home.journal)
        orphans = store.settle_orphans(time.time_ns() // 1000)
        witness.check(store.audit_heads())
        opening.forget_again(store, witness)
        tenant_id = opening.default_tenant(store)
        operator = keyring.open_locally(tenant_id)
        first_key = _first_key(home, store, keyring, tenant_id)
        shutil.rmtree(staging(home.path), ignore_errors=True)  # of a command that was killed
        serving = build_pools(home, settings, store, ModelStore(home.path), cards)
        if Environment.DEV in settings.server.environments:
            at_us = time.time_ns() // 1000
            managed = managed_routes(tenant_id, settings, cards, serving, at_us)
            store.put_routes(tenant_id, Environment.DEV, managed)
        places = {card.digest: (serving[card.name].engine, card.name) for card in cards}
        fleet.place_routes(store, places, settings.server.environments)
        clear_copies(home, settings, store, serving)
        gateway = build_gateway(home, settings, store, keyring, serving, cards, url, file)
        try:
            facts = banner.Facts(url, cards, first_key, orphans, store.newer_schema, as_json)
            await _run(home, gateway, listener, stop, facts, operator)
        finally:
            await gateway.fleet.stop()
            await asyncio.gather(*(pool.stop() for pool in serving.values()))
            await gateway.ledger.close()
    finally:
        store.close()
        if witness is not None:
            witness.close()


async def _run(
    home: Home,
    gateway: Gateway,
    listener: socket.socket,
    stop: _Stop,
    facts: banner.Facts,
    operator: Secret,
) -> None:
    text = f"The gateway started; {facts.orphans} requests of before had not ended."
    count = {"orphans": facts.orphans}
    gateway.events.tell(Happening(Kind.GATEWAY_STARTED, text, details=count))
    config, told = _uvicorn(gateway), _told(facts.as_json)
    server = _Server(config)
    greeting = tls.serving(home, gateway.settings.server, server.greet_again)
    if greeting is not None:
        config.load()
        config.ssl = greeting.context
        greeting.start()
    gateway.watch.start()
    gateway.access.start()
    gateway.events.start()
    gateway.notices.start()
    gateway.patterns.start()
    gateway.backups.start()
    gateway.decisions.start()
    gateway.jobs.start()
    gateway.revisions.start()
    gateway.peers.start()
    shared = list(gateway.pools.values())
    for pool in shared:
        pool.start()
    await gateway.fleet.start_missing()
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    record = _record(home, facts.url, gateway.settings.server, operator)
    write_private(home.gateway_record, record)
    try:
        if await _ready_or_stopped(shared, stop, told):
            with told.status("Measuring what a token costs here…"):
                await measure_prices(gateway, home, facts.cards)
            await banner.show(gateway, home, facts)
            # What there is now stays; looking through it again and again stopped all
            # requests for 70 ms at a time.
            gc.collect()
            gc.freeze()
            gc.set_threshold(_COLLECT_AFTER)
            await stop.asked.wait()
        await _drain(gateway, stop, told)
    finally:
        home.gateway_record.unlink(missing_ok=True)
        home.client_certificate.unlink(missing_ok=True)
        if greeting is not None:
            await greeting.stop()
        server.end()
        await serving
        await gateway.revisions.stop()
        await gateway.jobs.stop()
        await gateway.decisions.stop()
        await gateway.backups.stop()
        await gateway.patterns.stop()
        await gateway.notices.stop()
        await gateway.events.stop()
        await gateway.peers.stop()
        await gateway.access.stop()
        await gateway.watch.stop()


async def _ready_or_stopped(pools: Iterable[Pool], stop: _Stop, told: Console) -> bool:
    """True once every pool serves; False when a signal came first."""
    ready = asyncio.create_task(_all_ready(pools))
    asked = asyncio.create_task(stop.asked.wait())
    waiting: list[asyncio.Task[object]] = [ready, asked]
    with told.status("Loading the model…"):
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    if not ready.done():
        ready.cancel()
        await asyncio.gather(ready, return_exceptions=True)
        return False
    ready.result()
    return True


async def _all_ready(pools: Iterable[Pool]) -> None:
    await asyncio.gather(*(_one_ready(pool) for pool in pools))


async def _one_ready(pool: Pool) -> None:
    """A model that cannot be loaded is not loaded by waiting: a few starts tell."""
    ready = asyncio.ensure_future(pool.ensure_ready(_READY_S))
    try:
        while not (await asyncio.wait([ready], timeout=_LOOK_S))[0]:
            for replica in pool.status().replicas:
                if replica.restarts >= _STARTS:
                    raise UserError(
                        Code.ENGINE_UNAVAILABLE,
                        f"{pool.name} cannot be loaded ({replica.last_error}): check its file with "
                        f"`freehold model verify {pool.name}`, and see logs/engine-"
                        f"{replica.name}.log in the home.",
                    )
        await ready
    finally:
        ready.cancel()


async def _drain(gateway: Gateway, stop: _Stop, told: Console) -> None:
    gateway.is_draining = True
    running = len(gateway.watch)
    if running:
        told.print(f"Finishing {running} requests; Ctrl-C again ends them now.")
    drained = asyncio.create_task(gateway.watch.drain(gateway.settings.server.drain_s))
    again = asyncio.create_task(stop.again.wait())
    waiting: list[asyncio.Task[object]] = [drained, again]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    again.cancel()
    if not drained.done():
        drained.cancel()
        await gateway.watch.drain(0)
    told.print("Stopped.")


def _uvicorn(gateway: Gateway) -> uvicorn.Config:
    server, limits = gateway.settings.server, gateway.settings.limits
    most = min(server.max_connections, _connections_that_fit())
    return uvicorn.Config(
        app.build(gateway),
        http=connection.limited(limits.slow_client_s, most),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=2,
    )


def _first_key(home: Home, store: SqlStore, keyring: Keyring, tenant_id: str) -> str | None:
    """Mints the admin key on the first start only; a lost one is replaced by a key
    of an administrator, never by restarting."""
    if any(Scope.ADMIN in key.scopes for key in store.keys(tenant_id)):
        return None
    environment = next(each for each in Environment if each in keyring.environments)
    wanted = KeyRequest(tenant_id, environment, "admin", frozenset(Scope))
    _, key = keyring.mint(wanted)
    if key is None:
        return None
    write_private(home.admin_key, key.reveal().encode() + b"\n")
    return key.reveal()


def _record(home: Home, url: str, server: ServerSettings, operator: Secret) -> bytes:
    """How `reach.py` finds this gateway, and may act on it as the owner of the home."""
    certificate = server.tls_certificate
    return orjson.dumps(
        {
            "url": url,
            "pid": os.getpid(),
            "certificate": certificate and os.path.abspath(certificate),
            "client_certificate": str(home.client_certificate) if server.client_ca else None,
            "operator": operator.reveal(),
        }
    )


def _url(server: ServerSettings, listener: socket.socket) -> str:
    """How this machine reaches it, which is not by the address that stands for all."""
    address, port = listener.getsockname()[:2]
    host = server.host
    bound = network.address(address.partition("%")[0])
    if bound is None or bound.is_unspecified:
        host = "::1" if listener.family == socket.AF_INET6 else "127.0.0.1"
    host = f"[{host}]" if ":" in host else host
    scheme = "https" if server.tls_certificate else "http"
    return f"{scheme}://{host}:{port}"


def _connections_that_fit() -> int:
    """Each may hold an engine's connection too, and some files are ours."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, (soft - _OWN_FILES) // 2)


def _raise_file_limit() -> None:
    """Each stream holds two sockets; the soft limit is often only 1,024 files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, 65_536) if hard != resource.RLIM_INFINITY else 65_536
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
