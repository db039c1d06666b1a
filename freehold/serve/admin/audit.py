"""`/admin/v1/audit`: the audit records of a tenant's environment, of a tenant, or of the
installation, page by page."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

import orjson
from pydantic import Field

from freehold.core.action import Action, Installation
from freehold.core.audit import INSTALLATION, Kind, Level, Sought, stream_at
from freehold.core.audit import Record as AuditRecord
from freehold.core.binding import Principal
from freehold.core.errors import Code, UserError
from freehold.secure.subjects import Subjects
from freehold.serve.gateway import Gateway
from freehold.serve.owner import OwnQuery, owner
from freehold.serve.reading import Time, in_us, query
from freehold.serve.wire import Receive, Scope, Send, reply_json
from freehold.store.audit import Place, place_of
from freehold.store.sql import SqlStore

# The number of a record, or its time, its number, and the gateway where there can be several.
_CURSOR = r"^[0-9]{1,18}(\.[0-9]{1,18}(\.[0-9A-Za-z_-]{1,64})?)?$"


class AuditQuery(OwnQuery):
    """Oldest first. All come in the order of the chain, from the record after that number on;
    those that are sought by time, principal, model or kind, and those of several gateways, in
    the order of time, stream and number. For more, ask again with `cursor` as the answer's
    `next` has it: each then comes once. Times without a zone are UTC."""

    level: Level = Level.ENVIRONMENT
    since: Time | None = None
    until: Time | None = None
    principal: Annotated[str, Field(max_length=64)] | None = None
    model: Annotated[str, Field(max_length=128)] | None = None
    kind: Kind | None = None
    cursor: Annotated[str, Field(pattern=_CURSOR)] | None = None

    @property
    def sought(self) -> Sought:
        since_us, until_us = in_us(self.since), in_us(self.until)
        return Sought(since_us, until_us, self.principal, self.model, self.kind)

    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    after: Annotated[int, Field(ge=0, lt=2**63)] = 0


class AuditAdmin:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def listing(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        asked = query(AuditQuery, scope)
        stream = self._stream(scope, principal, asked)
        await asyncio.to_thread(self._gateway.ledger.flush)
        store, subjects = self._gateway.store, self._gateway.subjects
        await reply_json(send, await asyncio.to_thread(audit_page, store, subjects, stream, asked))

    def _stream(self, scope: Scope, principal: Principal, asked: AuditQuery) -> str:
        gateway = self._gateway
        if asked.level is Level.INSTALLATION:
            action, address = Action.READ_OVERALL_AUDIT, scope["freehold.address"]
            gateway.policies.require(principal, action, Installation(), address)
            return INSTALLATION
        tenant_id, environment = owner(gateway, scope, principal, asked.tenant, asked.environment)
        return stream_at(asked.level, tenant_id, environment)


def audit_page(
    store: SqlStore, subjects: Subjects, stream: str, asked: AuditQuery
) -> dict[str, Any]:
    """What is asked for, and how to ask for what follows it."""
    sought, limit = asked.sought, asked.limit
    is_by_time = sought != Sought() or store.gateway is not None
    first, *others = (asked.cursor or "").split(".")
    if first and bool(others) is not is_by_time:
        raise UserError(
            Code.INVALID_VALUE, "This cursor is of another question: leave it out.", param="cursor"
        )
    if is_by_time:
        place = _place(stream, int(first), *others) if first else None
        found = store.audit_found(stream, sought, limit + 1, place, asked.after)
    else:
        found = store.audit_page(stream, limit + 1, int(first or asked.after))
    shown = found[:limit]
    following = None
    if len(found) > limit:
        following = _cursor(shown[-1]) if is_by_time else str(shown[-1].number)
    return {
        "data": shown_audit(shown, subjects),
        "has_more": following is not None,
        "next": following,
    }


def _place(stream: str, at_us: int, number: str, gateway: str | None = None) -> Place:
    return at_us, f"{stream}@{gateway}" if gateway else stream, int(number)


def _cursor(record: AuditRecord) -> str:
    at_us, stream, number = place_of(record)
    gateway = stream.partition("@")[2]
    return f"{at_us}.{number}.{gateway}" if gateway else f"{at_us}.{number}"


def shown_audit(records: Sequence[AuditRecord], subjects: Subjects) -> list[dict[str, Any]]:
    """`body` is the text that was hashed, so that others can check the chain too."""
    known = subjects.read([orjson.loads(each.body) for each in records])
    return [
        {
            "stream": record.stream,
            "number": record.number,
            "body": record.body.decode(),
            "hash": record.hash.hex(),
            "personal": personal,
        }
        for record, personal in zip(records, known, strict=True)
    ]
