"""The limits as requests meet them: which fit a request, what is held, what is settled."""

from collections.abc import Awaitable, Callable, Sequence

from freehold.core.binding import Environment, Principal
from freehold.core.clock import Clock
from freehold.core.errors import Code, UserError
from freehold.core.limit import Limit, Use
from freehold.secure.quota import Hold, Standing
from freehold.serve.limits.accounts import Accounts
from freehold.serve.wire import Header
from freehold.store.limits import LimitTable

_REMEMBERED = 10_000

Count = Callable[[], Awaitable[Use | None]]


class Limits:
    """On the event loop's thread, except for `read`."""

    def __init__(self, store: LimitTable, accounts: Accounts, clock: Clock, currency: str) -> None:
        self._store = store
        self._accounts = accounts
        self._clock = clock
        self._by_tenant: dict[str, list[Limit]] = {}
        self._fitting: dict[tuple[str, str, str], tuple[Limit, ...]] = {}
        self.currency = currency
        self._mark: tuple[int, int] | None = None
        self.show(self.read())

    def read(self) -> Sequence[Limit] | None:
        """What the store says now, or None where that is what it said before; may block."""
        mark = self._store.limits_mark()
        if mark == self._mark:
            return None
        found = self._store.every_limit()
        self._mark = mark
        return found

    def show(self, found: Sequence[Limit] | None) -> None:
        if found is None:
            return
        by_tenant: dict[str, list[Limit]] = {}
        for limit in found:
            by_tenant.setdefault(limit.tenant_id, []).append(limit)
        if by_tenant == self._by_tenant:
            return
        self._by_tenant = by_tenant
        self._fitting.clear()
        self._accounts.keep(found)

    def fitting(self, principal: Principal) -> tuple[Limit, ...]:
        """Those that hold for what it asks of models."""
        if principal.tenant_id not in self._by_tenant:
            return ()
        key = principal.tenant_id, principal.environment.value, principal.account
        found = self._fitting.get(key)
        if found is None:
            if len(self._fitting) >= _REMEMBERED:
                self._fitting.clear()
            found = self._fitting[key] = tuple(
                each
                for each in self._by_tenant[principal.tenant_id]
                if each.environment in (None, principal.environment)
                and each.subject in (None, principal.account)
            )
        return found

    def nothing(self, request_id: str) -> Hold:
        """Where no limit fits: what is used is counted all the same, as one may be set
        while the request runs."""
        return Hold(request_id, self._clock.wall_us())

    async def hold(
        self, request_id: str, principal: Principal, most: Use, likely: Use, count: Count
    ) -> Hold:
        """Raises what `Accounts.hold` raises, and then nothing is held. A request that would
        not fit with as many tokens as its bytes is counted (`count`) before it is refused."""
        limits = self.fitting(principal)
        try:
            return await self._accounts.hold(request_id, limits, most, likely)
        except UserError as refused:
            if refused.code is not Code.BUDGET_EXCEEDED:
                raise
            counted = await count()
            if counted is None:
                raise
        return await self._accounts.hold(request_id, limits, counted, likely)

    def settle(self, hold: Hold, principal: Principal, used: Use) -> None:
        """Right after the ledger was told of the settlement."""
        self._accounts.settle(hold, self.fitting(principal), used)

    async def closed(self, hold: Hold) -> None:
        await self._accounts.closed(hold)

    async def release(self, hold: Hold) -> None:
        """Changes nothing once it is settled."""
        await self._accounts.release(hold)

    async def standings(self, tenant_id: str, environment: Environment | None) -> list[Standing]:
        """Of a tenant's limits: those of one environment and those of all."""
        return await self._accounts.standings(
            [
                each
                for each in self._by_tenant.get(tenant_id, ())
                if environment is None or each.environment in (None, environment)
            ]
        )


def rate_headers(hold: Hold) -> list[Header]:
    """What a minute still allows, under the names that OpenAI's clients know."""
    tightest: dict[str, Standing] = {}
    for each in hold.rates:
        name = each.limit.measure.value
        known = tightest.get(name)
        if known is None or _left(each) < _left(known):
            tightest[name] = each
    found: list[Header] = []
    for name, standing in tightest.items():
        found += [
            (b"x-ratelimit-limit-%b" % name.encode(), b"%d" % standing.limit.amount),
            (b"x-ratelimit-remaining-%b" % name.encode(), b"%d" % _left(standing)),
        ]
    return found


def _left(standing: Standing) -> int:
    return max(0, standing.limit.amount - standing.used)
