"""Work beside the gateway, or on a home that rests."""

import hashlib
import socket
from collections.abc import Callable

from freehold.catalog.adapters import Adapters
from freehold.catalog.datasets import Datasets
from freehold.catalog.store import ModelStore
from freehold.config.home import Home
from freehold.config.schema import Settings
from freehold.core.clock import Clock
from freehold.core.event import Happening
from freehold.engines.cores import usable_cores
from freehold.operate.jobs.booking import Book, BookingAtRest, BookingServed
from freehold.operate.jobs.evaluating import Deciding, KeysOfJobs
from freehold.operate.jobs.supervisor import Jobs
from freehold.operate.jobs.taking_in import TakingIn
from freehold.operate.jobs.tuning import Tuning
from freehold.secure.keys import Keyring
from freehold.serve.limits.limits import Limits
from freehold.store.ledger import Ledger
from freehold.store.sql import SqlStore


def place_of(home: Home) -> str:
    """Tells gateways on one database apart."""
    return hashlib.sha256(f"{socket.gethostname()}:{home.path}".encode()).hexdigest()[:16]


def build_jobs(
    home: Home,
    settings: Settings,
    store: SqlStore,
    adapters: Adapters,
    clock: Clock,
    tell: Callable[[Happening], None],
    cost: int | None,
    served: tuple[Ledger, Limits, Keyring] | None,
) -> Jobs:
    """`cost`: of an hour of the machine, in micro-units. `served`: of the gateway beside which
    they run; None on a home that rests."""
    ledger, limits, keyring = served or (None, None, None)
    decided = Deciding(store, clock, ledger, settings.currency)
    take_in = TakingIn(home.path, adapters, decided)
    threads = _threads_of_jobs(settings, is_serving=served is not None)
    book: Book = BookingAtRest(clock, cost, store)
    if ledger is not None and limits is not None:
        book = BookingServed(clock, cost, ledger, limits)
    keys = None if keyring is None else KeysOfJobs(keyring, store, clock)
    return Jobs(
        home.path,
        settings.tune,
        store,
        clock,
        place_of(home),
        take_in,
        tell,
        threads,
        book,
        keys=keys,
    )


def build_tuning(
    home: Home,
    settings: Settings,
    store: SqlStore,
    models: ModelStore,
    adapters: Adapters,
    datasets: Datasets,
    clock: Clock,
    cost: int | None,
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
        cost,
        _threads_of_jobs(settings, is_serving=is_serving),
    )


def _threads_of_jobs(settings: Settings, *, is_serving: bool) -> int | None:
    """Beside serving, a job has half of the cores, and those only while nobody else wants
    them; else all."""
    if not is_serving:
        return None
    return settings.tune.threads or max(1, usable_cores() // 2)
