"""Promotions: revisions that move between environments, whole or with a share, and back."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, RowMapping, delete, insert, select, update

from freehold.core.acts import Act, Change
from freehold.core.adapter import Adapter
from freehold.core.audit import stream_of
from freehold.core.binding import Environment, Route
from freehold.core.errors import Code, UserError
from freehold.core.gate import Gate
from freehold.core.limit import Limit
from freehold.core.promotion import Bundle, Promotion, PromotionState, Watch
from freehold.core.signature import Signer
from freehold.core.usage import Outcome
from freehold.store.backend import EVERY_TENANT
from freehold.store.gates import add_gate_in
from freehold.store.identity import count_change
from freehold.store.limits import LimitTable, row_of
from freehold.store.lineage import note_removal
from freehold.store.routing import (
    Routing,
    candidate_route,
    candidates_of,
    check_adapter,
    insert_routes,
    route_of,
    row_of_adapter,
    take,
    with_candidate,
)
from freehold.store.tables import (
    adapters,
    audit_content,
    candidates,
    limits,
    promotions,
    requests,
    routes,
)

_COLUMNS = tuple(column.name for column in candidates.columns if column.name != "share")


class Moved(NamedTuple):
    """What became of an alias: the promotion as it is now, where requests go from now on, and
    what they no longer go to."""

    promotion: Promotion
    route: Route | None
    released: tuple[Route, ...]


class Kept(NamedTuple):
    """What is kept of an answered request, sealed."""

    request_id: str
    endpoint: str
    data_keys: tuple[str, ...]
    sealed: bytes


class PromotionTable(Routing, LimitTable):
    def promote(
        self,
        tenant_id: str,
        new: Promotion,
        route: Route,
        brought: Adapter | None = None,
        allowed: Sequence[Limit] = (),
        decided: Gate | None = None,
    ) -> Moved:
        """Lets a revision in: with a share beside what answers, or whole in its place. `brought`,
        `allowed` and a gate that was `decided` elsewhere come along. Raises `UserError`, and then
        nothing has changed: `CONFLICT` where another promotion of the alias is shared still, or
        nothing is there to share with; `NOT_FOUND` where the environment has no such adapter."""
        with self._changing(tenant_id) as changing:
            connection = changing.connection
            here = _here(tenant_id, new.environment, new.alias)
            _check_alone(connection, here, new.alias)
            if brought is not None:
                connection.execute(insert(adapters), [row_of_adapter(tenant_id, brought)])
                stream = stream_of(tenant_id, new.environment)
                changing.note(Change(Act.ADAPTER_ADD, stream, brought.id, (), brought.name))
            check_adapter(connection, tenant_id, route)
            if decided is not None:
                add_gate_in(changing, tenant_id, decided)
            if allowed:
                rows = [row_of(tenant_id, each) for each in allowed]
                connection.execute(insert(limits), rows)
                count_change(connection)
            if new.state is PromotionState.SHARING:
                moved = _beside(connection, here, new, route)
            else:
                moved = _instead(connection, new, route)
            connection.execute(insert(promotions).values(**_row(tenant_id, moved.promotion)))
            fields = tuple(
                name
                for name in ("gate", "forced", "accepted", "share", "elsewhere")
                if getattr(new, name)
            )
            changing.note(_change(Act.PROMOTION_MAKE, new, *fields))
            self._tell_peers(connection, tenant_id, new.environment)
            return moved

    def share_promotion(self, tenant_id: str, promotion_id: str, share: float, at_us: int) -> Moved:
        """Another share of the requests; all of them at 1. Raises `CONFLICT` for one that is not
        shared any more."""
        with self._changing(tenant_id) as changing:
            connection = changing.connection
            found = _shared(connection, tenant_id, promotion_id)
            here = _here(tenant_id, found.environment, found.alias)
            row = connection.execute(select(candidates).where(_of(candidates, here))).mappings()
            route = candidate_route(row.one())
            if share < 1:
                found = replace(found, share=share)
                connection.execute(
                    update(candidates).where(_of(candidates, here)).values(share=share)
                )
                moved = Moved(found, _answering(connection, here), ())
            else:
                connection.execute(delete(candidates).where(_of(candidates, here)))
                found = replace(found, share=1.0, state=PromotionState.WHOLE, whole_at_us=at_us)
                moved = _instead(connection, found, route)
            _write(connection, tenant_id, moved.promotion)
            changing.note(_change(Act.PROMOTION_CHANGE, found, "share"))
            self._tell_peers(connection, tenant_id, found.environment)
            return moved

    def roll_back(
        self,
        tenant_id: str,
        promotion: Promotion,
        back_to: Route | None,
        because: str,
        by: str,
        at_us: int,
    ) -> Moved:
        """Takes back what a promotion brought; `back_to` is where its alias leads then, with the
        engine of today. Raises `CONFLICT` where the promotion is no longer the last that the
        alias had, `NOT_FOUND` where the adapter of before was removed."""
        with self._changing(tenant_id) as changing:
            connection = changing.connection
            here = _here(tenant_id, promotion.environment, promotion.alias)
            found = _one(connection, tenant_id, promotion.id)
            if found is None or found.state is PromotionState.ROLLED_BACK:
                raise no_longer(promotion)
            if found.state is PromotionState.SHARING:
                released = _drop(connection, here)
                now = _answering(connection, here)
            else:
                now, released = _back(connection, found, back_to)
            connection.execute(delete(limits).where(limits.c.id.in_(found.bundle.limits)))
            count_change(connection)
            found = replace(
                found,
                state=PromotionState.ROLLED_BACK,
                ended_at_us=at_us,
                ended_because=because,
                ended_by=by,
            )
            _write(connection, tenant_id, found)
            changing.note(_change(Act.PROMOTION_ROLL_BACK, found))
            self._tell_peers(connection, tenant_id, found.environment)
            return Moved(found, now, released)

    def route(self, tenant_id: str, environment: Environment, alias: str) -> Route | None:
        """One of those that `routes` has."""
        with self._reading(tenant_id) as connection:
            return _answering(connection, _here(tenant_id, environment, alias))

    def promotions(
        self,
        tenant_id: str,
        environment: Environment,
        limit: int,
        before: str | None = None,
        alias: str | None = None,
        adapter: str | None = None,
    ) -> Sequence[Promotion]:
        """The newest first; `before` is the last one that was seen, `adapter` the
        digest of what was promoted."""
        mine = (promotions.c.tenant_id == tenant_id) & (promotions.c.environment == environment)
        if before is not None:
            mine &= promotions.c.id < before
        if alias is not None:
            mine &= promotions.c.alias == alias
        if adapter is not None:
            mine &= promotions.c.bundle.contains(f'"adapter": "{adapter}"', autoescape=True)
        wanted = select(promotions).where(mine).order_by(promotions.c.id.desc()).limit(limit)
        with self._reading(tenant_id) as connection:
            return [_promotion(row) for row in connection.execute(wanted).mappings()]

    def promotion(
        self, tenant_id: str, environment: Environment, promotion_id: str
    ) -> Promotion | None:
        with self._reading(tenant_id) as connection:
            found = _one(connection, tenant_id, promotion_id)
            return found if found is not None and found.environment is environment else None

    def last_promotion(
        self, tenant_id: str, environment: Environment, alias: str
    ) -> Promotion | None:
        """What a rollback takes back: the one that is shared, or the one that the alias leads by
        now."""
        here = _here(tenant_id, environment, alias)
        with self._reading(tenant_id) as connection:
            for table in (candidates, routes):
                named = select(table.c.promotion).where(_of(table, here))
                if table is routes:
                    named = named.where(routes.c.managed.is_(False))
                if (promotion_id := connection.scalar(named)) is not None:
                    return _one(connection, tenant_id, promotion_id)
        return None

    def watched_promotions(self, now_us: int) -> Sequence[Promotion]:
        """All tenants' that are shared, or have been whole for no longer than they are watched:
        to compare by itself, and to show to nobody."""
        is_shared = promotions.c.state == PromotionState.SHARING
        leads = select(routes.c.id).where(routes.c.promotion == promotions.c.id)
        is_new = (
            (promotions.c.state == PromotionState.WHOLE)
            & (promotions.c.watched_until_us > now_us)
            & leads.exists()
        )
        with self._reading(EVERY_TENANT) as connection:
            wanted = select(promotions).where(is_shared | is_new).order_by(promotions.c.id)
            return [_promotion(row) for row in connection.execute(wanted).mappings()]

    def answered_by(
        self,
        tenant_id: str,
        environment: Environment,
        alias: str,
        revision: tuple[str | None, str | None],
        since_us: int,
        most: int,
    ) -> Sequence[tuple[str, int | None, int, int]]:
        """Outcome, time to the first token, duration and tokens of what a base with an adapter
        answered, the newest of it."""
        columns = [requests.c[name] for name in ("outcome", "ttft_us", "duration_us", "tokens_out")]
        wanted = select(*columns).where(
            *_by(tenant_id, environment, alias, revision),
            requests.c.created_at_us >= since_us,
            requests.c.duration_us.is_not(None),
        )
        newest = wanted.order_by(requests.c.created_at_us.desc()).limit(most)
        with self._reading(tenant_id) as connection:
            return [tuple(row) for row in connection.execute(newest)]

    def kept_by(
        self,
        tenant_id: str,
        environment: Environment,
        alias: str,
        revision: tuple[str | None, str | None],
        since_us: int,
        most: int,
    ) -> Sequence[Kept]:
        """What is kept of what it answered well, oldest first. That nobody is shown any of it is on
        the caller."""
        wanted = (
            select(
                requests.c.id, requests.c.endpoint, audit_content.c.data_keys,
                audit_content.c.sealed,
            )
            .join(audit_content, audit_content.c.request_id == requests.c.id)
            .where(
                *_by(tenant_id, environment, alias, revision),
                requests.c.created_at_us >= since_us,
                requests.c.outcome == Outcome.OK,
            )
            .order_by(requests.c.created_at_us)
            .limit(most)
        )  # fmt: skip
        with self._reading(tenant_id) as connection:
            return [
                Kept(row.id, row.endpoint, tuple(row.data_keys.split()), row.sealed)
                for row in connection.execute(wanted)
            ]

    def exported(self, tenant_id: str, adapter: Adapter, alias: str, *fields: str) -> None:
        """That it left in a file is recorded, or it does not; `fields` are what went along."""
        stream = stream_of(tenant_id, adapter.environment)
        with self._changing(tenant_id) as changing:
            changing.note(Change(Act.REVISION_EXPORT, stream, adapter.id, fields, alias))

    def compared(self, tenant_id: str, promotion_id: str, figures: Mapping[str, Any]) -> None:
        """Keeps the figures of the last comparison."""
        this = (promotions.c.id == promotion_id) & (promotions.c.tenant_id == tenant_id)
        with self._writing(tenant_id) as connection:
            connection.execute(update(promotions).where(this).values(figures=json.dumps(figures)))


def no_longer(promotion: Promotion) -> UserError:
    return UserError(
        Code.CONFLICT,
        f"{promotion.alias} has moved on since {promotion.id}: see `freehold promotion list`.",
    )


def no_promotion(promotion_id: str) -> UserError:
    return UserError(
        Code.NOT_FOUND,
        f"There is no promotion {promotion_id[:80]!r}: see `freehold promotion list`.",
    )


def _instead(connection: Connection, new: Promotion, route: Route) -> Moved:
    before = take(connection, new.tenant_id, new.environment, new.alias)
    put = insert_routes(connection, [replace(route, managed=False, promotion=new.id)], before)
    return Moved(replace(new, before=before), put[0], () if before is None else (before,))


def _back(
    connection: Connection, found: Promotion, back_to: Route | None
) -> tuple[Route | None, tuple[Route, ...]]:
    taken = take(connection, found.tenant_id, found.environment, found.alias)
    if taken is None or taken.promotion != found.id:
        raise no_longer(found)
    if back_to is None:
        note_removal(connection, taken)
        return None, (taken,)
    check_adapter(connection, found.tenant_id, back_to)
    put = insert_routes(connection, [back_to], taken)
    return put[0], (taken,)


def _check_alone(connection: Connection, here: Mapping[str, Any], alias: str) -> None:
    other = connection.scalar(select(candidates.c.promotion).where(_of(candidates, here)))
    if other is not None:
        raise UserError(
            Code.CONFLICT,
            f"{alias} is shared with another revision still ({other}): give that one everything "
            "(`freehold promote … --share 100`) or take it back (`freehold rollback`) first.",
        )


def _beside(connection: Connection, here: Mapping[str, Any], new: Promotion, route: Route) -> Moved:
    answering = _answering(connection, here)
    if answering is None:
        raise UserError(
            Code.CONFLICT,
            f"{new.alias} leads nowhere in {new.environment} yet, so that there is nothing to "
            "share with: leave --share out.",
            param="share",
        )
    values = {name: getattr(route, name) for name in _COLUMNS}
    connection.execute(
        insert(candidates).values(**values | {"promotion": new.id, "share": new.share})
    )
    return Moved(replace(new, before=answering), _answering(connection, here), ())


def _drop(connection: Connection, here: Mapping[str, Any]) -> tuple[Route, ...]:
    rows = connection.execute(select(candidates).where(_of(candidates, here))).mappings().all()
    connection.execute(delete(candidates).where(_of(candidates, here)))
    return tuple(candidate_route(row) for row in rows)


def _answering(connection: Connection, here: Mapping[str, Any]) -> Route | None:
    """Where the alias leads, with its candidate."""
    rows = connection.execute(
        select(routes).where(_of(routes, here)).order_by(routes.c.managed)
    ).mappings()
    row = rows.first()
    if row is None:
        return None
    return with_candidate(route_of(row), candidates_of(connection, _of(candidates, here)))


def _shared(connection: Connection, tenant_id: str, promotion_id: str) -> Promotion:
    found = _one(connection, tenant_id, promotion_id)
    if found is None:
        raise no_promotion(promotion_id)
    if found.state is not PromotionState.SHARING:
        raise UserError(
            Code.CONFLICT,
            f"{found.id} is {found.state.value.replace('_', ' ')} already: see `freehold "
            "promotion list`.",
        )
    return found


def _one(connection: Connection, tenant_id: str, promotion_id: str) -> Promotion | None:
    this = (promotions.c.id == promotion_id) & (promotions.c.tenant_id == tenant_id)
    row = connection.execute(select(promotions).where(this)).mappings().first()
    return None if row is None else _promotion(row)


def _by(
    tenant_id: str,
    environment: Environment,
    alias: str,
    revision: tuple[str | None, str | None],
) -> list[ColumnElement[bool]]:
    base, adapter = revision
    return [
        requests.c.tenant_id == tenant_id,
        requests.c.environment == environment,
        requests.c.alias == alias,
        requests.c.base_digest.is_not_distinct_from(base),
        requests.c.adapter_digest.is_not_distinct_from(adapter),
        requests.c.settled_at_us.is_not(None),
    ]


def _here(tenant_id: str, environment: Environment, alias: str) -> dict[str, Any]:
    return {"tenant_id": tenant_id, "environment": environment, "alias": alias}


def _of(table: Any, here: Mapping[str, Any]) -> ColumnElement[bool]:
    tenant_id, environment, alias = here.values()
    found: ColumnElement[bool] = (
        (table.c.tenant_id == tenant_id)
        & (table.c.environment == environment)
        & (table.c.alias == alias)
    )
    return found


def _change(act: Act, promotion: Promotion, *fields: str) -> Change:
    stream = stream_of(promotion.tenant_id, promotion.environment)
    return Change(act, stream, promotion.id, fields, promotion.alias)


def _write(connection: Connection, tenant_id: str, promotion: Promotion) -> None:
    this = (promotions.c.id == promotion.id) & (promotions.c.tenant_id == tenant_id)
    connection.execute(update(promotions).where(this).values(**_row(tenant_id, promotion)))


def _row(tenant_id: str, promotion: Promotion) -> dict[str, Any]:
    plain = {column.name: getattr(promotion, column.name, None) for column in promotions.columns}
    before = promotion.before
    return plain | {
        "tenant_id": tenant_id,
        "bundle": json.dumps(asdict(promotion.bundle)),
        "overridden": json.dumps(promotion.overridden),
        "watch": json.dumps(asdict(promotion.watch)),
        "watched_until_us": _watched_until_us(promotion),
        "before": None if before is None else json.dumps(_plain(before)),
        "before_adapter": None if before is None else before.adapter_digest,
        "figures": None if promotion.figures is None else json.dumps(promotion.figures),
        "elsewhere": promotion.elsewhere and json.dumps(asdict(promotion.elsewhere)),
    }


def _watched_until_us(promotion: Promotion) -> int | None:
    """None as long as it is shared, for as long as that is."""
    if promotion.whole_at_us is None:
        return None
    return promotion.whole_at_us + round(promotion.watch.seconds * 1e6)


def _plain(route: Route) -> dict[str, Any]:
    return {name: getattr(route, name) for name in Route.__slots__ if name != "candidate"}


def _promotion(row: RowMapping) -> Promotion:
    values = {name: row[name] for name in Promotion.__slots__}
    bundle = json.loads(row["bundle"])
    before = None if row["before"] is None else json.loads(row["before"])
    return Promotion(
        **values
        | {
            "environment": Environment(row["environment"]),
            "source": None if row["source"] is None else Environment(row["source"]),
            "bundle": Bundle(**bundle | {"limits": tuple(bundle["limits"])}),
            "overridden": tuple(json.loads(row["overridden"])),
            "watch": Watch(**json.loads(row["watch"])),
            "state": PromotionState(row["state"]),
            "before": before
            and Route(**before | {"environment": Environment(before["environment"])}),
            "figures": None if row["figures"] is None else json.loads(row["figures"]),
            "elsewhere": row["elsewhere"] and Signer(**json.loads(row["elsewhere"])),
        }
    )
