"""The loss on what was held out. A route's API tells no log probabilities of what it is told, so
that nothing can be computed through it; the job that trained an adapter measured it."""

from typing import Any

from freehold.adapt.evaluate.asking import Gateway, Route
from freehold.core.errors import UserError

WHY = (
    "The OpenAI API gives no log probabilities of what it is told, and no training job of this "
    "environment made the adapter."
)
_MOST_JOBS = 1000


async def held_out_loss(gateway: Gateway, route: Route) -> dict[str, Any]:
    """With the loss of the bare base, of the same examples. `value` is None where nobody
    measured it, or the key may not look."""
    unknown = {"alias": route.alias, "value": None, "why": WHY}
    if route.adapter_digest is None:
        return unknown
    try:
        jobs = (await gateway.get("/admin/v1/jobs", {"limit": _MOST_JOBS}))["data"]
    except UserError:
        return unknown
    for job in jobs:
        result = job["result"] or {}
        if result.get("adapter_digest") == route.adapter_digest and result.get("held_out_loss"):
            return {
                "alias": route.alias,
                "value": result["held_out_loss"],
                "before": result.get("held_out_loss_before"),
                "dataset": job["spec"].get("dataset"),
                "job": job["id"],
            }
    return unknown
