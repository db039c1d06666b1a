"""What people said of answers, one row for each of them and each answer."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import orjson
from sqlalchemy import ColumnElement, RowMapping, delete, func, insert, select

from freehold.core.acts import Act, Change
from freehold.core.audit import stream_of
from freehold.core.binding import Environment
from freehold.core.feedback import Answered, Feedback, Rated, Rating
from freehold.store.audit import AuditTable
from freehold.store.tables import audit_content, feedback, requests

Thumbs = Mapping[str | None, tuple[int, int]]  # by the adapter's digest: up, and down


class FeedbackTable(AuditTable):
    def answered(
        self, tenant_id: str, environment: Environment, request_id: str
    ) -> Answered | None:
        """A request of whomever in that environment."""
        mine = (requests.c.id == request_id) & (requests.c.tenant_id == tenant_id)
        mine &= requests.c.environment == environment
        with self._reading(tenant_id) as connection:
            row = connection.execute(select(requests).where(mine)).mappings().first()
        if row is None:
            return None
        personal = orjson.loads(row["personal"]) if row["personal"] else {"keys": ()}
        return Answered(
            request_id,
            row["account"] or row["key_id"],
            row["alias"],
            row["adapter_digest"],
            tuple(personal["keys"]),
        )

    def put_feedback(self, tenant_id: str, new: Feedback) -> None:
        """In place of what the same person said of the same answer before."""
        stream = stream_of(new.tenant_id, new.environment)
        fields = ("rating", *(("text",) if new.sealed is not None else ()))
        with self._changing(tenant_id) as changing:
            before = _of(tenant_id, new.environment) & (feedback.c.request_id == new.request_id)
            before &= feedback.c.given_by == new.given_by
            changing.connection.execute(delete(feedback).where(before))
            row = dataclasses.asdict(new) | {
                "tenant_id": tenant_id, "data_keys": " ".join(new.data_keys),
            }  # fmt: skip
            changing.connection.execute(insert(feedback), [row])
            changing.note(Change(Act.FEEDBACK_GIVE, stream, new.request_id, fields))

    def feedback(
        self,
        tenant_id: str,
        environment: Environment,
        limit: int,
        after: str = "",
        *,
        since_us: int = 0,
        alias: str | None = None,
    ) -> list[Feedback]:
        """In the order of their ids, the first `limit` whose id comes after `after`."""
        mine = _of(tenant_id, environment) & (feedback.c.id > after)
        mine &= feedback.c.given_at_us >= since_us
        if alias is not None:
            mine &= feedback.c.alias == alias
        wanted = select(feedback).where(mine).order_by(feedback.c.id).limit(limit)
        with self._reading(tenant_id) as connection:
            return [_feedback(row) for row in connection.execute(wanted).mappings()]

    def rated(
        self,
        tenant_id: str,
        environment: Environment,
        limit: int,
        after: str = "",
        *,
        since_us: int = 0,
        alias: str | None = None,
    ) -> list[Rated]:
        """As `feedback`, each with what is kept of what was said; that nobody is shown any of
        it, and that somebody asked, is on the caller."""
        found = self.feedback(tenant_id, environment, limit, after, since_us=since_us, alias=alias)
        named = [each.request_id for each in found]
        wanted = (
            select(requests.c.id, requests.c.endpoint, audit_content.c.data_keys,
                   audit_content.c.sealed)
            .outerjoin(audit_content, audit_content.c.request_id == requests.c.id)
            .where(requests.c.id.in_(named), requests.c.tenant_id == tenant_id)
        )  # fmt: skip
        with self._reading(tenant_id) as connection:
            kept = {row.id: row for row in connection.execute(wanted)}
        return [
            Rated(each, row.endpoint, tuple((row.data_keys or "").split()), row.sealed)
            for each in found
            if (row := kept.get(each.request_id)) is not None
        ]

    def thumbs(self, tenant_id: str, environment: Environment, alias: str, since_us: int) -> Thumbs:
        """Of the answers that came under each adapter, None for the bare base."""
        counted = self._counted(tenant_id, environment, since_us, feedback.c.alias == alias)
        return {digest: found for (_, digest), found in counted.items()}

    def every_thumb(
        self, tenant_id: str, environment: Environment, since_us: int
    ) -> Mapping[tuple[str, str | None], tuple[int, int]]:
        """Of all aliases, by alias and adapter."""
        return self._counted(tenant_id, environment, since_us)

    def _counted(
        self,
        tenant_id: str,
        environment: Environment,
        since_us: int,
        *narrowed: ColumnElement[bool],
    ) -> dict[tuple[str, str | None], tuple[int, int]]:
        what = (feedback.c.alias, feedback.c.adapter_digest, feedback.c.rating)
        wanted = select(*what, func.count()).group_by(*what).order_by(*what[:2])
        wanted = wanted.where(
            _of(tenant_id, environment), feedback.c.given_at_us >= since_us, *narrowed
        )
        found: dict[tuple[str, str | None], tuple[int, int]] = {}
        with self._reading(tenant_id) as connection:
            for alias, digest, rating, count in connection.execute(wanted):
                up, down = found.get((alias, digest), (0, 0))
                is_up = rating == Rating.UP
                found[alias, digest] = (count, down) if is_up else (up, count)
        return found


def _of(tenant_id: str, environment: Environment) -> ColumnElement[bool]:
    return (feedback.c.tenant_id == tenant_id) & (feedback.c.environment == environment)


def _feedback(row: RowMapping) -> Feedback:
    values: dict[str, Any] = {str(name): value for name, value in row.items()}
    return Feedback(
        **values
        | {
            "environment": Environment(row["environment"]),
            "rating": Rating(row["rating"]),
            "data_keys": tuple(row["data_keys"].split()),
        }
    )
