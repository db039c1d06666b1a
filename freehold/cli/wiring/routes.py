"""The routes that stand for what is served."""

from collections.abc import Mapping, Sequence

from freehold.config.schema import Settings
from freehold.core.binding import Environment, Route
from freehold.core.ids import new_id
from freehold.core.model import ModelCard
from freehold.deploy.pool import Pool


def managed_routes(
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
