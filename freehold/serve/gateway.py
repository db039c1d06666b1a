"""What every request shares. Built once, in `cli/wiring/`; nothing here is global."""

from __future__ import annotations  # what all these are is only said, so that it costs no import

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from freehold.serve.request.quarantine import Quarantine

if TYPE_CHECKING:
    from freehold.catalog.adapters import Adapters
    from freehold.catalog.datasets import Datasets
    from freehold.catalog.exporting import Exporting
    from freehold.catalog.lineage import Lineages
    from freehold.config.schema import Settings
    from freehold.core.binding import Binding, Environment
    from freehold.core.clock import Clock
    from freehold.core.dataset import Dataset, DatasetKind
    from freehold.core.decision import Decision
    from freehold.core.errors import Fault
    from freehold.core.job import Job, JobKind
    from freehold.core.model import ModelCard
    from freehold.core.usage import Settlement
    from freehold.deploy.pool import Pool
    from freehold.deploy.pools import Pools
    from freehold.secure.keys import Keyring
    from freehold.secure.network import Proxies
    from freehold.secure.sessions import Sessions
    from freehold.secure.subjects import Subjects
    from freehold.serve.access import Access
    from freehold.serve.browser.cookies import Cookies
    from freehold.serve.browser.login import Login
    from freehold.serve.directory import Directory
    from freehold.serve.events.events import Events
    from freehold.serve.events.notices import Notices
    from freehold.serve.limits.limits import Limits
    from freehold.serve.metrics import Metrics
    from freehold.serve.patterns import Patterns
    from freehold.serve.peers import Peers
    from freehold.serve.people import People
    from freehold.serve.policies import LivePolicies
    from freehold.serve.prices import Prices
    from freehold.serve.promotions import Promoting
    from freehold.serve.refusals import Refusals
    from freehold.serve.request.watch import Watch
    from freehold.serve.room import Room
    from freehold.serve.routes import Routes
    from freehold.serve.tenants import Tenants
    from freehold.store.ledger import Ledger
    from freehold.store.sql import SqlStore

_log = logging.getLogger(__name__)


class Backups(Protocol):
    async def make(self) -> dict[str, Any]: ...

    def listing(self) -> list[dict[str, Any]]:
        """May block."""
        ...

    def start(self) -> None: ...

    async def stop(self) -> None: ...


class Decisions(Protocol):
    async def work(self, job: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Plans beside the gateway: see `operate/decisions/planning.py` for the jobs. Raises
        `UserError(OVERLOADED)` while another plan is made."""
        ...

    async def check(self, decision: Decision, days: int) -> dict[str, Any]:
        """What became of it in the last days. Raises as `work`."""
        ...

    async def fit(self, asked: Mapping[str, Any]) -> dict[str, Any]: ...

    def deployment(self, decision: Decision) -> dict[str, Any]:
        """The settings that it is served with. May block."""
        ...

    async def look(self, every_h: int) -> None:
        """Checks those that nobody did for so long, and tells what changed since."""
        ...

    def start(self) -> None: ...

    async def stop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class FromFeedback:
    """A dataset that is to be made of what people said of answers. `accept` is why what its
    report warns of may be in it."""

    name: str
    licence: str
    kind: DatasetKind
    alias: str | None
    since_us: int
    held_out: float
    seed: int
    redact: bool
    accept: str | None


class Collecting(Protocol):
    def collect(
        self, tenant_id: str, environment: Environment, wanted: FromFeedback
    ) -> tuple[Dataset, dict[str, Any]]:
        """The dataset and its report. May block. Raises `UserError`; then nothing is kept."""
        ...


class Jobs(Protocol):
    """Work beside the gateway. What is no coroutine may block, but for `begin`."""

    def add(
        self,
        owner: tuple[str, Environment],
        kind: JobKind,
        name: str,
        spec: Mapping[str, Any],
        made_by: str,
        files: Mapping[str, bytes] | None = None,
    ) -> Job: ...

    def begin(self) -> None:
        """Jobs were added, resumed or cancelled: they are looked at now."""
        ...

    def get(self, owner: tuple[str, Environment], job_id: str) -> Job:
        """Raises `NOT_FOUND`, as all that name a job."""
        ...

    def cancel(self, owner: tuple[str, Environment], job_id: str) -> Job: ...

    def resume(self, owner: tuple[str, Environment], job_id: str) -> Job:
        """Raises `CONFLICT` for one that did not end early."""
        ...

    def remove(self, owner: tuple[str, Environment], job_id: str) -> Job:
        """With what it said. Raises `CONFLICT` for one that has not ended."""
        ...

    def log(self, job: Job) -> list[dict[str, Any]]: ...

    async def look(self) -> None: ...

    def start(self) -> None: ...

    async def stop(self) -> None:
        """Their processes go on: the next gateway finds them."""
        ...


class Revisions(Protocol):
    """What was promoted, as long as it is watched."""

    async def look(self) -> None: ...

    def start(self) -> None: ...

    async def stop(self) -> None: ...


class Prepared(Protocol):
    """A job that may be begun, and what it will take."""

    @property
    def name(self) -> str: ...

    @property
    def spec(self) -> Mapping[str, Any]: ...

    def plain(self) -> dict[str, Any]: ...


class Evaluation(Protocol):
    """One that may be begun: `aliases` are what it asks, `files` are for its work folder."""

    @property
    def name(self) -> str: ...

    @property
    def spec(self) -> Mapping[str, Any]: ...

    @property
    def aliases(self) -> frozenset[str]: ...

    @property
    def files(self) -> Mapping[str, bytes]: ...


class Evaluating(Protocol):
    """May block."""

    def prepare(self, owner: tuple[str, Environment], asked: Mapping[str, Any]) -> Evaluation:
        """Raises `UserError` for what cannot be evaluated, or says nothing."""
        ...

    def result(self, job: Job) -> dict[str, Any] | None:
        """With all answers; None where it is not there."""
        ...


class Tuning(Protocol):
    def prepare(self, owner: tuple[str, Environment], asked: Mapping[str, Any]) -> Prepared:
        """May block. Raises `UserError` for what cannot be trained, or takes more than it
        may."""
        ...


@dataclass(slots=True)
class Gateway:
    settings: Settings
    clock: Clock
    store: SqlStore
    keyring: Keyring
    directory: Directory
    ledger: Ledger
    watch: Watch
    metrics: Metrics
    room: Room
    pools: Mapping[str, Pool]  # changed by `fleet` alone
    fleet: Pools
    tenants: Tenants
    access: Access
    policies: LivePolicies
    refusals: Refusals
    subjects: Subjects
    cards: Mapping[str, ModelCard]  # by digest
    adapters: Adapters
    datasets: Datasets
    collecting: Collecting
    lineages: Lineages
    limits: Limits
    prices: Prices
    routes: Routes
    backups: Backups
    decisions: Decisions
    jobs: Jobs
    tuning: Tuning
    promoting: Promoting
    exporting: Exporting
    revisions: Revisions
    evaluating: Evaluating
    events: Events
    notices: Notices
    peers: Peers
    patterns: Patterns
    describe: Callable[[], dict[str, Any]]  # what `freehold status` shows besides pools
    sessions: Sessions
    people: People | None = None  # None: only keys
    cookies: Cookies | None = None  # None: nobody logs in with a browser
    login: Login | None = None
    proxies: Proxies | None = None  # whose word about their clients counts
    quarantine: Quarantine = field(default_factory=Quarantine)
    is_draining: bool = False
    _tokens_out: int = 0

    def observe(self, binding: Binding, settlement: Settlement) -> None:
        """Counts a settlement for Prometheus and writes its line in the log."""
        route, endpoint = binding.route, binding.endpoint
        metrics = self.metrics
        # Metrics are open to all: they tell of models, and not of the tenants' aliases.
        metrics.count(route.pool.partition("@")[0], endpoint, settlement)
        self._tokens_out += settlement.tokens_out
        self.patterns.saw(binding, settlement)
        _log.info(
            "request",
            extra={
                "request_id": binding.request_id,
                "key_id": binding.principal.id,
                "model": route.alias,
                "endpoint": endpoint,
                "outcome": settlement.outcome.value,
                "code": settlement.error_code,
                "tokens_in": settlement.tokens_in,
                "tokens_out": settlement.tokens_out,
                "duration_us": settlement.duration_us,
            },
        )

    def log_fault(self, request_id: str, fault: Fault) -> None:
        _log.error("fault", extra={"request_id": request_id, "reason": fault.message})

    @property
    def tokens_out(self) -> int:
        """Tokens of all settled requests since the start."""
        return self._tokens_out
