"""What all tenants asked for, to plan machines by: of a running gateway, or of its store."""

import re
import time
from collections.abc import Iterator

from freehold.cli.reaching import reach
from freehold.config.home import Home
from freehold.config.trace import Row, Trace, trace_of
from freehold.core.binding import Environment
from freehold.core.engine import EMBEDDINGS
from freehold.core.errors import Code, UserError
from freehold.core.usage import Outcome

_PAGE = 1000
_DAY_US = 86_400_000_000


def used(home: Home, days: int) -> tuple[Trace, float]:
    """And the share of prompts that caches had."""
    until_us = time.time_ns() // 1000
    since_us = until_us - days * _DAY_US
    origin = f"What was used in {days} days"
    shares = _Shares()
    gateway = reach.running(home)
    if gateway is not None:
        return trace_of(_of_gateway(gateway, since_us, shares), origin), shares.cached
    with reach.offline(home, to_look=True) as (store, _, _):
        from freehold.store.fleet import recorded

        rows = (
            shares.row(
                each.created_at_us,
                each.tokens_in,
                each.tokens_out,
                each.tokens_cached,
                each.adapter_digest and (each.tenant_id, each.adapter_digest),
            )
            for each in recorded(store, since_us, until_us)
        )
        return trace_of(rows, origin), shares.cached


def days(span: str) -> int:
    found = re.fullmatch(r"([1-9][0-9]{0,3})\s*d(ays)?", span.strip())
    if found is None:
        raise UserError(Code.INVALID_VALUE, f"{span[:40]!r} is no time such as 30d: write days.")
    return int(found[1])


class _Shares:
    """Counts, beside the rows that pass."""

    def __init__(self) -> None:
        self._read = self._cached = 0

    @property
    def cached(self) -> float:
        return self._cached / self._read if self._read else 0.0

    def row(self, at_us: int, read: int, made: int, cached: int, adapter: object) -> Row:
        self._read += read
        self._cached += cached
        return at_us / 1e6, read, made, adapter or None


def _of_gateway(gateway: reach.RunningGateway, since_us: int, shares: _Shares) -> Iterator[Row]:
    """Tenant by tenant, in each environment, newest first: whoever may not read all of them
    is refused."""
    for tenant in gateway.call("GET", "/admin/v1/tenants")["data"]:
        for environment in Environment:
            yield from _of_space(gateway, tenant["id"], environment, since_us, shares)


def _of_space(
    gateway: reach.RunningGateway,
    tenant: str,
    environment: Environment,
    since_us: int,
    shares: _Shares,
) -> Iterator[Row]:
    asked = {"tenant": tenant, "environment": environment.value, "limit": _PAGE}
    while True:
        page = gateway.call("GET", "/admin/v1/requests", query=asked)["data"]
        for each in page:
            if each["created_at_us"] < since_us:
                return
            if each["outcome"] == Outcome.OK and each["endpoint"] != EMBEDDINGS:
                yield shares.row(
                    each["created_at_us"],
                    each["tokens_in"],
                    each["tokens_out"],
                    each["tokens_cached"],
                    each["adapter_digest"] and (tenant, each["adapter_digest"]),
                )
        if len(page) < _PAGE:
            return
        asked = asked | {"before": page[-1]["id"]}
