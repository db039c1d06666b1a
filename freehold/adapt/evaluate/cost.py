"""What an evaluation cost, as the gateway's ledger has it."""

from collections.abc import AsyncIterator
from typing import Any

from freehold.adapt.evaluate.asking import Gateway
from freehold.core.errors import UserError

_MOST_ROWS, _PAGE = 200_000, 1000


async def cost(gateway: Gateway, ids: set[str]) -> dict[str, Any]:
    """Of these requests; None where the key may not see that, or the price of one is not known."""
    unknown: dict[str, Any] = {"cost": None, "currency": None}
    try:
        currency = (await gateway.get("/admin/v1/prices", {}))["currency"]
        costs = {row["id"]: row["cost"] async for row in _rows(gateway, ids) if row["id"] in ids}
    except UserError:
        return unknown
    if costs.keys() != ids or None in costs.values():
        return unknown
    return {"cost": sum(costs.values()), "currency": currency}


async def _rows(gateway: Gateway, ids: set[str]) -> AsyncIterator[dict[str, Any]]:
    """Newest first, back to the oldest of these: ids sort by time."""
    query: dict[str, Any] = {"limit": _PAGE}
    for _ in range(_MOST_ROWS // _PAGE if ids else 0):
        rows = (await gateway.get("/admin/v1/requests", query))["data"]
        for row in rows:
            yield row
        if not rows or rows[-1]["id"] <= min(ids):
            return
        query["before"] = rows[-1]["id"]
