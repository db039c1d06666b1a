"""Events in the database, and what of them webhooks still have to be told."""

from collections.abc import Collection, Sequence
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Row, and_, delete, insert, select, update

from freehold.core.event import Event, Happening, Kind, Severity
from freehold.store.backend import EVERY_TENANT, Whose
from freehold.store.base import Due
from freehold.store.database import Database
from freehold.store.tables import event_deliveries, events


class EventTable(Database):
    def add_events(self, new: Sequence[tuple[Event, Collection[str]]]) -> None:
        """Each with the webhooks that must be told of it, in one transaction. Those that
        are there already change nothing."""
        with self._applying() as connection:
            for event, webhooks in new:
                known = select(events.c.id).where(events.c.id == event.id)
                if connection.scalar(known) is not None:
                    continue
                connection.execute(insert(events).values(**row_of(event)))
                for webhook in webhooks:
                    connection.execute(
                        insert(event_deliveries).values(
                            event_id=event.id, webhook=webhook, attempts=0, next_at_us=event.at_us
                        )
                    )

    def events(
        self,
        tenant_id: str,
        environment: str,
        limit: int,
        after: str = "",
        *,
        since_us: int = 0,
        least: Severity = Severity.INFO,
    ) -> Sequence[Event]:
        """A tenant's own, oldest first, from the event after that id on."""
        mine = (events.c.tenant_id == tenant_id) & (events.c.environment == environment)
        return self._events(tenant_id, mine & _wanted(after, since_us, least), limit)

    def every_event(
        self, limit: int, after: str = "", *, since_us: int = 0, least: Severity = Severity.INFO
    ) -> Sequence[Event]:
        """Of the installation and of all tenants: for who operates it."""
        return self._events(EVERY_TENANT, _wanted(after, since_us, least), limit)

    def _events(self, whose: Whose, wanted: ColumnElement[bool], limit: int) -> list[Event]:
        with self._reading(whose) as connection:
            rows = connection.execute(
                select(events).where(wanted).order_by(events.c.id).limit(limit)
            )
            return [_event(row) for row in rows]

    def due_deliveries(self, now_us: int, limit: int) -> Sequence[Due]:
        of_it = event_deliveries.c.event_id == events.c.id
        wanted = (
            select(events, event_deliveries.c.webhook, event_deliveries.c.attempts)
            .join(event_deliveries, of_it)
            .where(event_deliveries.c.next_at_us <= now_us)
            .order_by(event_deliveries.c.next_at_us, events.c.id)
            .limit(limit)
        )
        with self._reading(EVERY_TENANT) as connection:
            return [
                Due(_event(row), row.webhook, row.attempts) for row in connection.execute(wanted)
            ]

    def delivered(self, event_id: str, webhook: str) -> None:
        """Or given up."""
        with self._applying() as connection:
            connection.execute(delete(event_deliveries).where(_delivery(event_id, webhook)))

    def deliver_later(self, event_id: str, webhook: str, at_us: int) -> None:
        again = update(event_deliveries).where(_delivery(event_id, webhook))
        with self._applying() as connection:
            connection.execute(
                again.values(next_at_us=at_us, attempts=event_deliveries.c.attempts + 1)
            )

    def forget_events(self, before_us: int, webhooks: Collection[str]) -> None:
        """Old ones, and what webhooks that are not configured any more would be told."""
        old = select(events.c.id).where(events.c.at_us < before_us)
        with self._applying() as connection:
            connection.execute(
                delete(event_deliveries).where(
                    event_deliveries.c.webhook.not_in(webhooks)
                    | event_deliveries.c.event_id.in_(old)
                )
            )
            connection.execute(delete(events).where(events.c.at_us < before_us))


def _delivery(event_id: str, webhook: str) -> ColumnElement[bool]:
    return and_(event_deliveries.c.event_id == event_id, event_deliveries.c.webhook == webhook)


def _wanted(after: str, since_us: int, least: Severity) -> ColumnElement[bool]:
    wanted = (events.c.id > after) & (events.c.at_us >= since_us)
    if least is not Severity.INFO:
        wanted &= events.c.severity.in_(least.and_above)
    return wanted


def row_of(event: Event) -> dict[str, Any]:
    what = event.what
    return {
        "id": event.id,
        "at_us": event.at_us,
        "severity": event.severity.value,
        "kind": what.kind.value,
        "tenant_id": what.tenant_id,
        "environment": what.environment,
        "subject": what.subject,
        "text": what.text,
        "details": orjson.dumps(dict(what.details)).decode(),
    }


def _event(row: Row[Any]) -> Event:
    what = Happening(
        Kind(row.kind),
        row.text,
        row.subject,
        row.tenant_id,
        row.environment,
        orjson.loads(row.details),
    )
    return Event(row.id, row.at_us, Severity(row.severity), what)
