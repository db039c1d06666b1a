"""Builds the concrete things and hands them to each other. Nobody else does."""

import dataclasses
import functools
import hashlib
import os
import shutil
import socket
import ssl
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

import freehold
from freehold.catalog.adapters import Adapters
from freehold.catalog.datasets import Datasets
from freehold.catalog.lineage import Lineages
from freehold.catalog.own_weights import copied, forget_others, own_cache
from freehold.catalog.signatures import Signatures
from freehold.catalog.store import ModelStore
from freehold.cli import at_rest
from freehold.config.home import Home
from freehold.config.schema import EventSettings, ModelPrice, Settings
from freehold.config.trust import gateway_here, outgoing
from freehold.core.adapter import Adapter
from freehold.core.binding import Environment, Route
from freehold.core.clock import Clock, SystemClock
from freehold.core.engine import AdapterFiles
from freehold.core.errors import Code, UserError
from freehold.core.event import Happening, Kind
from freehold.core.ids import new_id
from freehold.core.model import ModelCard
from freehold.core.secret import Secret
from freehold.core.signature import Signature
from freehold.core.tenant import IsolationClass, OwnPool
from freehold.deploy.adapters import Owner, PoolAdapters, Stored
from freehold.deploy.autotune import Records, rank_limits, settings_for
from freehold.deploy.pool import Pool, RemoteMember
from freehold.deploy.pools import Pools
from freehold.deploy.probe import read_machine
from freehold.deploy.replica import Replica
from freehold.deploy.speed import Speed, Speeds
from freehold.deploy.speed import measure as measure_speed
from freehold.engines import registry, remote
from freehold.engines.base import LocalModel
from freehold.engines.cores import usable_cores
from freehold.operate import pricing
from freehold.operate.backups import Backups
from freehold.operate.booking import Book, BookingAtRest, BookingServed
from freehold.operate.collecting import Collecting
from freehold.operate.decisions import Decisions
from freehold.operate.evaluating import Deciding, Evaluating, KeysOfJobs
from freehold.operate.jobs import Jobs
from freehold.operate.marking import Marking
from freehold.operate.published import look_up
from freehold.operate.revisions import Revisions
from freehold.operate.taking_in import TakingIn
from freehold.operate.tuning import Tuning
from freehold.operate.watched import Usage, Used
from freehold.secure.keys import Keyring
from freehold.secure.network import Proxies
from freehold.secure.sessions import Sessions
from freehold.serve.access import Access
from freehold.serve.accounts import Accounts, OwnAccounts
from freehold.serve.cookies import Cookies
from freehold.serve.directory import Directory
from freehold.serve.events import Events
from freehold.serve.explain import Explainer
from freehold.serve.gateway import Gateway
from freehold.serve.limits import Limits
from freehold.serve.login import Login
from freehold.serve.metrics import Metrics
from freehold.serve.notices import Notices
from freehold.serve.patterns import Patterns
from freehold.serve.peers import Peers
from freehold.serve.people import People
from freehold.serve.policies import LivePolicies
from freehold.serve.prices import Prices
from freehold.serve.promotions import Promoting
from freehold.serve.refusals import Refusals
from freehold.serve.room import Room
from freehold.serve.routes import Routes
from freehold.serve.shared_accounts import SharedAccounts
from freehold.serve.tenants import Tenants
from freehold.serve.watch import Watch
from freehold.serve.webhooks import Sender, Webhook
from freehold.store import fleet
from freehold.store.ledger import Ledger
from freehold.store.sql import SqlStore


def signatures(home: Home, settings: Settings, store: SqlStore) -> Signatures:
    """Raises `UserError(CONFIG_INVALID)` for keys that cannot be read."""
    return Signatures(home.secrets / "signing", store, settings.supply, SystemClock())


def adapters_of(
    card: ModelCard,
    store: SqlStore,
    models: ModelStore,
    signed: Signatures,
    tenant_id: str | None = None,
) -> PoolAdapters:
    """What the replicas of this base are told of: the adapters that routes name for it,
    those of one tenant with engines of its own, or of all others. One that is nobody's by its
    signatures stays out, and one that is not everybody's is kept from the others."""

    def files(digests: Sequence[str]) -> Stored:
        found = fleet.adapter_files(store, digests)
        path = models.blobs.path
        owned = fleet.signed_adapters(store, card.digest, digests, signed.required)
        refused, apart = kept_out(owned, signed)
        told = [
            AdapterFiles(digest, path(a), path(b))
            for digest, (a, b) in found.items()
            if digest not in refused
        ]
        return Stored(told, refused, apart)

    return PoolAdapters(fleet.wanted_adapters(store, card.digest, tenant_id), files)


def kept_out(
    owned: Sequence[tuple[Adapter, Sequence[Signature]]], signed: Signatures
) -> tuple[dict[str, str], dict[tuple[Owner, str], str]]:
    """Why, of those that all of their owners may not use, and of others by owner."""
    apart: dict[tuple[Owner, str], str] = {}
    sound = set()
    for adapter, made in owned:
        reason = signed.why_not(adapter, made)
        if reason is None:
            sound.add(adapter.digest)
        else:
            apart[(adapter.tenant_id, adapter.environment), adapter.digest] = reason
    refused = {digest: reason for (_, digest), reason in apart.items() if digest not in sound}
    return refused, {key: why for key, why in apart.items() if key[1] in sound}


def pools(
    home: Home,
    settings: Settings,
    store: SqlStore,
    models: ModelStore,
    cards: Sequence[ModelCard],
) -> dict[str, Pool]:
    """One pool a served model, one an upstream."""
    records, trust = Records(home.cache), outgoing(settings.network.ca_file)
    signed = signatures(home, settings, store)
    made: dict[str, Pool] = {}
    for card in cards:
        chosen = settings_for(card, settings.engines, records)
        engine = registry.create(chosen.default, chosen, home.cache)
        local = LocalModel(card, models.path(card))
        replica = Replica(f"{card.name}-0", engine, local, home.logs)
        able = engine.capabilities(local)
        told = adapters_of(card, store, models, signed) if able.adapters else None
        made[card.name] = Pool(card.name, engine.name, [replica], able, settings.limits, told)
    for upstream in settings.upstreams:
        member = RemoteMember(upstream.name, remote.RemoteClient(upstream, trust))
        able = remote.capabilities(upstream, list(upstream.models))
        made[upstream.name] = Pool(upstream.name, "remote", [member], able, settings.limits)
    return made


def own_pool(
    home: Home,
    settings: Settings,
    store: SqlStore,
    models: ModelStore,
    card: ModelCard,
    own: OwnPool,
) -> Pool:
    """A pool that one tenant alone uses; may block while its weights are copied."""
    chosen = settings_for(card, settings.engines, Records(home.cache))
    cache, path = home.cache, models.path(card)
    if own.has_own_weights:
        cache = own_cache(home.cache, own.tenant_id)
        path = copied(models.files(card), path, cache / "weights")
    engine = registry.create(chosen.default, chosen, cache)
    local = LocalModel(card, path)
    able = engine.capabilities(local)
    signed = signatures(home, settings, store)
    told = adapters_of(card, store, models, signed, own.tenant_id) if able.adapters else None
    replica = Replica(f"{own.name}-0", engine, local, home.logs)
    return Pool(own.name, engine.name, [replica], able, settings.limits, told, own)


def desired_pools(
    store: SqlStore, serving: Mapping[str, Pool], environments: Collection[Environment]
) -> list[OwnPool]:
    """The pools of tenants with engines of their own, for the bases that are served."""
    shared = {
        pool.base_digest: name
        for name, pool in list(serving.items())
        if pool.own is None and pool.base_digest is not None
    }
    return [
        OwnPool(
            tenant.pool(shared[base]),
            shared[base],
            tenant.id,
            base,
            tenant.isolation is IsolationClass.WEIGHTS,
        )
        for tenant, base in fleet.bases_apart(store, environments)
        if base in shared
    ]


def clear_copies(
    home: Home, settings: Settings, store: SqlStore, serving: Mapping[str, Pool]
) -> None:
    """Copies of weights that no tenant is promised any more."""
    wanted = desired_pools(store, serving, settings.server.environments)
    forget_others(home.cache, {own.tenant_id for own in wanted if own.has_own_weights})


def _let_go(home: Home, gone: OwnPool, left: Sequence[OwnPool]) -> None:
    """The copies of the weights, once no pool reads them."""
    if gone.has_own_weights and not any(
        each.has_own_weights and each.tenant_id == gone.tenant_id for each in left
    ):
        shutil.rmtree(own_cache(home.cache, gone.tenant_id), ignore_errors=True)


def routes(
    tenant_id: str,
    settings: Settings,
    cards: Sequence[ModelCard],
    serving: Mapping[str, Pool],
    at_us: int,
) -> list[Route]:
    """The default tenant's routes: each served model under its own name, each
    upstream model under its alias. An alias of ours wins over an upstream's."""
    found = {}
    for card in cards:
        engine, name = serving[card.name].engine, card.name
        found[name] = _route(tenant_id, name, engine, name, card.digest, card.digest, at_us)
    for upstream in settings.upstreams:
        for model in upstream.models:
            route = _route(
                tenant_id, model.alias, "remote", upstream.name, None, model.upstream_name, at_us
            )
            found.setdefault(model.alias, route)
    return list(found.values())


def _route(
    tenant_id: str,
    alias: str,
    engine: str,
    pool: str,
    digest: str | None,
    engine_model: str,
    at_us: int,
) -> Route:
    return Route(
        id=new_id("rte"),
        tenant_id=tenant_id,
        environment=Environment.DEV,
        alias=alias,
        engine=engine,
        pool=pool,
        base_digest=digest,
        adapter_digest=None,
        engine_model=engine_model,
        created_at_us=at_us,
    )


def prices(
    home: Home, settings: Settings, cards: Sequence[ModelCard], serving: Mapping[str, Pool]
) -> Prices:
    """What is known without asking an engine; the others' is measured once they serve."""
    machine = read_machine()
    made = Prices(pricing.machine_cost(settings.prices, settings.currency, machine))
    given = {each.model: each for each in settings.prices.models}
    _put_upstreams(made, settings, given)
    speeds = Speeds(home.cache, machine)
    for card in cards:
        if card.name in given:
            made.put("", card.digest, pricing.of_settings(given[card.name]))
        elif (speed := speeds.find(card, serving[card.name].engine)) is not None:
            _price_here(made, card, speed)
    return made


def _put_upstreams(made: Prices, settings: Settings, given: Mapping[str, ModelPrice]) -> None:
    bought = [(upstream, model) for upstream in settings.upstreams for model in upstream.models]
    rate = pricing.for_a_dollar(settings.prices, settings.currency)
    asked = [(up.base_url, model.upstream_name) for up, model in bought if model.alias not in given]
    listed = look_up(asked, rate)
    for upstream, model in bought:
        own = given.get(model.alias)
        price = (
            listed.get((upstream.base_url, model.upstream_name))
            if own is None
            else pricing.of_settings(own)
        )
        if price is not None:
            made.put(upstream.name, model.upstream_name, price)


def _price_here(made: Prices, card: ModelCard, speed: Speed) -> None:
    if made.machine is not None:
        made.put("", card.digest, pricing.of_machine(made.machine, speed))


async def measure_prices(gateway: Gateway, home: Home, cards: Sequence[ModelCard]) -> None:
    """What tokens cost on this machine, of the models that have no price yet."""
    speeds = Speeds(home.cache, read_machine())
    priced = {digest for engine, digest, _ in gateway.prices.rows() if not engine}
    for card in cards:
        if card.digest in priced:
            continue
        pool = gateway.pools[card.name]
        speed = await measure_speed(pool, card)
        if speed is not None:
            speeds.keep(card, pool.engine, speed)
            _price_here(gateway.prices, card, speed)


def _accounts(store: SqlStore, ledger: Ledger, clock: Clock, currency: str) -> Accounts:
    if store.gateway is None:
        return OwnAccounts(store, ledger, clock, currency)
    return SharedAccounts(store, clock, currency)


def _people(settings: Settings, tenants: Tenants, store: SqlStore, clock: Clock) -> People | None:
    providers = settings.identity_providers
    if not providers:
        return None
    trust = outgoing(settings.network.ca_file)
    return People(providers, tenants, settings.server.environments, store, clock, trust)


def _proxies(settings: Settings) -> Proxies | None:
    server = settings.server
    if not (server.trusted_proxies or server.proxy_certificates):
        return None
    return Proxies(server.trusted_proxies, server.proxy_certificates)


def _cookies(settings: Settings) -> Cookies | None:
    """Only where somebody can log in with a browser does a cookie count."""
    origin = settings.server.public_url
    if origin is None or not any(each.client_id for each in settings.identity_providers):
        return None
    return Cookies(origin)


def _login(
    settings: Settings, people: People | None, sessions: Sessions, keyring: Keyring
) -> Login | None:
    if people is None:
        return None
    return Login(people, sessions, keyring, settings.server.public_url)


def explainer(settings: Settings, store: SqlStore, clock: Clock) -> Explainer:
    """For a home that no gateway serves."""
    tenants = Tenants(store)
    people = _people(settings, tenants, store, clock)
    directory = Directory(store, tenants)
    return Explainer(store, tenants, LivePolicies(store, clock), directory, people, clock)


def webhooks(settings: EventSettings) -> list[Webhook]:
    """Raises `UserError(CONFIG_INVALID)` for files that cannot be read."""
    return [
        Webhook(
            each.url,
            _secret_in(each.secret_file),
            each.severity,
            None if each.ca_file is None else _trusting(each.ca_file),
        )
        for each in settings.webhooks
    ]


def _secret_in(name: str) -> Secret:
    try:
        found = Path(name).expanduser().read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        found = ""
    if not found:
        raise UserError(
            Code.CONFIG_INVALID,
            f"events.webhooks: {name} cannot be read or is empty: put the secret into it that the "
            "receiver knows.",
        )
    return Secret(found)


def _trusting(name: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=Path(name).expanduser())
    except OSError:  # of which ssl.SSLError is one
        raise UserError(
            Code.CONFIG_INVALID, f"events.webhooks: {name} holds no certificates in PEM."
        ) from None


def _place(home: Home) -> str:
    """Tells gateways on one database apart."""
    return hashlib.sha256(f"{socket.gethostname()}:{home.path}".encode()).hexdigest()[:16]


def usage_of(store: SqlStore) -> Usage:
    """What decisions are held against."""

    def used(since_us: int, until_us: int, aliases: Sequence[str] | None) -> Used:
        return Used(*fleet.used(store, since_us, until_us, aliases))

    return used


def jobs(
    home: Home,
    settings: Settings,
    store: SqlStore,
    adapters: Adapters,
    clock: Clock,
    tell: Callable[[Happening], None],
    served: tuple[Ledger, Limits, Keyring] | None,
) -> Jobs:
    """`served`: of the gateway beside which they run; None on a home that rests."""
    ledger, limits, keyring = served or (None, None, None)
    decided = Deciding(store, clock, ledger, settings.currency)
    take_in = TakingIn(home.path, adapters, decided)
    threads = _threads_of_jobs(settings, is_serving=served is not None)
    cost = _micro_per_hour(settings)
    book: Book = BookingAtRest(clock, cost, store)
    if ledger is not None and limits is not None:
        book = BookingServed(clock, cost, ledger, limits)
    keys = None if keyring is None else KeysOfJobs(keyring, store, clock)
    return Jobs(
        home.path,
        settings.tune,
        store,
        clock,
        _place(home),
        take_in,
        tell,
        threads,
        book,
        keys=keys,
    )


def _micro_per_hour(settings: Settings) -> int | None:
    machine = pricing.machine_cost(settings.prices, settings.currency, read_machine())
    return machine.micro_per_hour if machine else None


def tuning(
    home: Home,
    settings: Settings,
    store: SqlStore,
    models: ModelStore,
    adapters: Adapters,
    datasets: Datasets,
    clock: Clock,
    *,
    is_serving: bool,
) -> Tuning:
    return Tuning(
        home.path,
        store,
        models,
        adapters,
        datasets,
        clock,
        settings.currency,
        _micro_per_hour(settings),
        _threads_of_jobs(settings, is_serving=is_serving),
    )


def _threads_of_jobs(settings: Settings, *, is_serving: bool) -> int | None:
    """Beside serving, a job has half of the cores, and those only while nobody else wants
    them; else all."""
    if not is_serving:
        return None
    return settings.tune.threads or max(1, usable_cores() // 2)


def backup_failed(events: Events) -> Callable[[str], None]:
    def told(why: str) -> None:
        text = f"No backup could be made: {why}"
        events.tell(Happening(Kind.BACKUP_FAILED, text))

    return told


def gateway(
    home: Home,
    settings: Settings,
    store: SqlStore,
    keyring: Keyring,
    serving: dict[str, Pool],
    cards: Sequence[ModelCard],
    url: str,
    settings_file: Path | None = None,
) -> Gateway:
    """Must be called on the event loop's thread: the ledger belongs to it."""
    clock, models = SystemClock(), ModelStore(home.path)
    by_digest = {card.digest: card for card in cards}
    tenants = Tenants(store)
    directory = Directory(store, tenants)
    limits = rank_limits(settings.engines, Records(home.cache))
    signed = signatures(home, settings, store)
    adapters = Adapters(home.path, store, models, signed, clock, limits)
    data = Datasets(home.path, store, clock)
    own = Pools(
        serving,
        functools.partial(desired_pools, store, serving, settings.server.environments),
        functools.partial(fleet.wanted_adapters, store),
        lambda own: own_pool(home, settings, store, models, by_digest[own.base_digest], own),
        functools.partial(_let_go, home),
    )
    store.keep_bases({card.digest: dataclasses.asdict(card) for card in cards})
    since, _ = store.routes_changed(0)
    directory.fill(fleet.every_route(store))  # so that no request waits for thousands
    ledger = Ledger(store, home.journal)
    accounts = _accounts(store, ledger, clock, settings.currency)
    held = Limits(store, accounts, clock, settings.currency)
    watch = Watch(settings.limits, clock, ledger)
    changes = Routes(
        store,
        adapters,
        directory,
        tenants,
        serving,
        own,
        by_digest,
        functools.partial(fleet.is_wanted, store),
        clock,
    )
    subjects = at_rest.open_subjects(home, store)
    policies, refusals = LivePolicies(store, clock), Refusals(store, clock)
    people = _people(settings, tenants, store, clock)
    sessions = Sessions(store, keyring, settings.sessions)
    access = Access(
        store,
        keyring,
        tenants,
        directory,
        watch,
        own,
        changes.changing,
        policies,
        held,
        refusals,
        subjects,
        people,
        store,
    )
    marking = Marking(store, subjects, keyring, clock, lambda: gateway_here(home))
    sender = Sender(webhooks(settings.events), store, clock)
    events = Events(store, sender, clock, settings.events.keep_days)
    process = psutil.Process()

    def describe() -> dict[str, Any]:
        return {
            "version": freehold.__version__,
            "url": url,
            "pid": os.getpid(),
            "rss_bytes": process.memory_info().rss,
        }

    return Gateway(
        settings=settings,
        clock=clock,
        store=store,
        keyring=keyring,
        directory=directory,
        ledger=ledger,
        watch=watch,
        metrics=Metrics(),
        room=Room(settings.server.max_bodies_bytes),
        pools=serving,
        fleet=own,
        tenants=tenants,
        access=access,
        policies=policies,
        refusals=refusals,
        subjects=subjects,
        people=people,
        sessions=sessions,
        cookies=_cookies(settings),
        login=_login(settings, people, sessions, keyring),
        proxies=_proxies(settings),
        cards=by_digest,
        adapters=adapters,
        datasets=data,
        collecting=Collecting(home.path, store, subjects, data, settings.data),
        lineages=Lineages(store, models, data, signed),
        limits=held,
        prices=prices(home, settings, cards, serving),
        routes=changes,
        backups=Backups(home, settings, settings_file or home.settings, backup_failed(events)),
        decisions=Decisions(home.path, settings, store, usage_of(store), ledger, events, clock),
        jobs=jobs(home, settings, store, adapters, clock, events.tell, (ledger, held, keyring)),
        evaluating=Evaluating(home.path, store, data),
        tuning=tuning(home, settings, store, models, adapters, data, clock, is_serving=True),
        promoting=Promoting(store, adapters, settings.server.environments),
        revisions=Revisions(store, changes, marking, events.tell, clock),
        events=events,
        patterns=Patterns(
            store,
            keyring,
            events,
            clock,
            _place(home),
            settings.patterns.learn,
            settings.patterns.on_departure,
        ),
        notices=Notices(events, serving, own, ledger, policies),
        peers=Peers(store, changes, since),
        describe=describe,
    )
