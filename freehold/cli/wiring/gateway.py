"""The gateway of one process, whole."""

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

import freehold
from freehold.catalog.adapters import Adapters
from freehold.catalog.datasets import Datasets
from freehold.catalog.exporting import Exporting
from freehold.catalog.lineage import Lineages
from freehold.catalog.store import ModelStore
from freehold.cli.at_rest import opening
from freehold.cli.wiring.decisions import usage_of
from freehold.cli.wiring.jobs import build_jobs, build_tuning, place_of
from freehold.cli.wiring.people import build_cookies, build_login, build_people, build_proxies
from freehold.cli.wiring.pools import build_own_pool, desired_pools, let_go, signatures
from freehold.cli.wiring.prices import build_prices
from freehold.cli.wiring.webhooks import build_webhooks
from freehold.config.home import Home
from freehold.config.schema import Settings
from freehold.config.trust import gateway_here
from freehold.core.clock import Clock, SystemClock
from freehold.core.event import Happening, Kind
from freehold.core.model import ModelCard
from freehold.deploy.autotune import Records, rank_limits
from freehold.deploy.pool import Pool
from freehold.deploy.pools import Pools
from freehold.operate.backups.served import Backups
from freehold.operate.decisions.served import Decisions
from freehold.operate.feedback.collecting import Collecting
from freehold.operate.jobs.evaluating import Evaluating
from freehold.operate.revisions.marking import Marking
from freehold.operate.revisions.watching import Revisions
from freehold.secure.keys import Keyring
from freehold.secure.sessions import Sessions
from freehold.serve.access import Access
from freehold.serve.directory import Directory
from freehold.serve.events.events import Events
from freehold.serve.events.notices import Notices
from freehold.serve.events.webhooks import Sender
from freehold.serve.gateway import Gateway
from freehold.serve.limits.accounts import Accounts, OwnAccounts
from freehold.serve.limits.limits import Limits
from freehold.serve.limits.shared_accounts import SharedAccounts
from freehold.serve.metrics import Metrics
from freehold.serve.patterns import Patterns
from freehold.serve.peers import Peers
from freehold.serve.policies import LivePolicies
from freehold.serve.promotions import Promoting
from freehold.serve.refusals import Refusals
from freehold.serve.request.watch import Watch
from freehold.serve.room import Room
from freehold.serve.routes import Routes
from freehold.serve.tenants import Tenants
from freehold.store import fleet
from freehold.store.ledger import Ledger
from freehold.store.sql import SqlStore


def build_gateway(
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
    lineages, evaluating = Lineages(store, models, data, signed), Evaluating(home.path, store, data)
    own = Pools(
        serving,
        functools.partial(desired_pools, store, serving, settings.server.environments),
        functools.partial(fleet.wanted_adapters, store),
        lambda own: build_own_pool(home, settings, store, models, by_digest[own.base_digest], own),
        functools.partial(let_go, home),
    )
    store.keep_bases({card.digest: dataclasses.asdict(card) for card in cards})
    since = store.heard(0).number
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
    subjects = opening.open_subjects(home, store)
    policies, refusals = LivePolicies(store, clock), Refusals(store, clock)
    people = build_people(settings, tenants, store, clock)
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
    sender = Sender(build_webhooks(settings.events), store, clock)
    events = Events(store, sender, clock, settings.events.keep_days)
    prices = build_prices(home, settings, cards, serving)
    cost = None if prices.machine is None else prices.machine.micro_per_hour
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
        cookies=build_cookies(settings),
        login=build_login(settings, people, sessions, keyring),
        proxies=build_proxies(settings),
        cards=by_digest,
        adapters=adapters,
        datasets=data,
        collecting=Collecting(home.path, store, subjects, data, settings.data),
        lineages=lineages,
        limits=held,
        prices=prices,
        routes=changes,
        backups=Backups(home, settings, settings_file or home.settings, _backup_failed(events)),
        decisions=Decisions(home.path, settings, store, usage_of(store), ledger, events, clock),
        jobs=build_jobs(
            home, settings, store, adapters, clock, events.tell, cost, (ledger, held, keyring)
        ),
        evaluating=evaluating,
        tuning=build_tuning(
            home, settings, store, models, adapters, data, clock, cost, is_serving=True
        ),
        promoting=Promoting(store, adapters, settings.server.environments, settings.currency),
        exporting=Exporting(
            store,
            adapters,
            lineages,
            evaluating.evaluated,
            settings.server.environments,
            settings.currency,
            clock,
        ),
        revisions=Revisions(store, changes, marking, events.tell, clock),
        events=events,
        patterns=Patterns(
            store,
            keyring,
            events,
            clock,
            place_of(home),
            settings.patterns.learn,
            settings.patterns.on_departure,
        ),
        notices=Notices(events, serving, own, ledger, policies),
        peers=Peers(store, changes, since),
        describe=describe,
    )


def _accounts(store: SqlStore, ledger: Ledger, clock: Clock, currency: str) -> Accounts:
    if store.gateway is None:
        return OwnAccounts(store, ledger, clock, currency)
    return SharedAccounts(store, clock, currency)


def _backup_failed(events: Events) -> Callable[[str], None]:
    def told(why: str) -> None:
        text = f"No backup could be made: {why}"
        events.tell(Happening(Kind.BACKUP_FAILED, text))

    return told
