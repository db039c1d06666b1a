"""`/admin/v1/*`: what the command line and the console ask of a running gateway."""

import asyncio
import dataclasses
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl

import orjson
from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from freehold.core.action import Action, Installation
from freehold.core.audit import INSTALLATION, Kind, Level, Sought, stream_at
from freehold.core.audit import Record as AuditRecord
from freehold.core.binding import Environment, Principal
from freehold.core.clock import rfc3339 as rfc3339
from freehold.core.errors import Code, UserError
from freehold.secure.keys import stepped_down
from freehold.secure.subjects import Subjects
from freehold.serve.gateway import Gateway
from freehold.serve.owner import OwnQuery, owner
from freehold.serve.wire import Receive, Scope, Send, read_body, reply_json
from freehold.store.audit import Place, place_of
from freehold.store.sql import SqlStore

MAX_BODY_BYTES = 64 * 1024
_MAX_DAYS = 3660
_MAX_QUERY_FIELDS = 20
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
# The number of a record, or its time, its number, and the gateway where there can be several.
_CURSOR = r"^[0-9]{1,18}(\.[0-9]{1,18}(\.[0-9A-Za-z_-]{1,64})?)?$"
_Shape = TypeVar("_Shape", bound=BaseModel)


def _dated(given: object) -> object:
    """Pydantic would take `0.5` for half a second after 1970, which nobody means."""
    if not _DATE.match(str(given)):
        raise ValueError("must be a time such as 2026-01-31T12:00:00Z")
    return given


Time = Annotated[datetime, BeforeValidator(_dated)]


class UsageQuery(OwnQuery):
    days: Annotated[int, Field(ge=1, le=_MAX_DAYS)] = 30
    key: Annotated[str, Field(max_length=64)] | None = None


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


class RecordsQuery(OwnQuery):
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    before: Annotated[str, Field(max_length=64)] | None = None


class Admin:
    """What was used, and how the installation is."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def status(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        gateway = self._gateway
        pools = [dataclasses.asdict(pool.status()) for pool in gateway.pools.values()]
        await reply_json(
            send,
            {
                **gateway.describe(),
                "in_flight": len(gateway.watch),
                "tokens_out": gateway.tokens_out,
                "ledger_writable": gateway.ledger.is_writable,
                "draining": gateway.is_draining,
                "pools": pools,
            },
        )

    async def usage(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        asked = query(UsageQuery, scope)
        tenant_id, environment = owner(
            self._gateway, scope, principal, asked.tenant, asked.environment
        )
        until_us = self._gateway.clock.wall_us() + 1
        midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        since = midnight - timedelta(days=asked.days - 1)
        await asyncio.to_thread(self._gateway.ledger.flush)
        rows = await asyncio.to_thread(
            self._gateway.store.usage,
            tenant_id,
            int(since.timestamp() * 1e6),
            until_us,
            asked.key,
            environment=environment,
        )
        thumbs = await asyncio.to_thread(
            shown_thumbs, self._gateway.store, tenant_id, environment, int(since.timestamp() * 1e6)
        )
        data = [dataclasses.asdict(row) for row in rows]
        await reply_json(send, {"data": data, "thumbs": thumbs})

    async def records(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        asked = query(RecordsQuery, scope)
        tenant_id, environment = owner(
            self._gateway, scope, principal, asked.tenant, asked.environment
        )
        await asyncio.to_thread(self._gateway.ledger.flush)
        rows = await asyncio.to_thread(
            self._gateway.store.records,
            tenant_id,
            asked.limit,
            asked.before,
            environment=environment,
        )
        await reply_json(send, {"data": rows})

    async def audit(
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

    async def list_models(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        cards = [dataclasses.asdict(card) for card in self._gateway.cards.values()]
        await reply_json(send, {"data": cards})


def shown_thumbs(
    store: SqlStore, tenant_id: str, environment: Environment, since_us: int
) -> list[dict[str, Any]]:
    found = store.every_thumb(tenant_id, environment, since_us)
    return [
        {"alias": alias, "adapter_digest": digest, "up": up, "down": down}
        for (alias, digest), (up, down) in found.items()
    ]


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


def in_us(at: datetime | None) -> int | None:
    if at is None:
        return None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1e6)


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


async def body_of(
    gateway: Gateway,
    scope: Scope,
    receive: Receive,
    principal: Principal,
    key: str,
    most: int = MAX_BODY_BYTES,
) -> bytes:
    """A whole body, from who may still send it once it is there."""
    from freehold.serve import admission  # commands on a home at rest use the rest of this file

    raw = await read_body(scope, receive, most, gateway.room)
    gateway.room.give_back(len(raw))
    now = await admission.still(gateway, scope, principal, key)
    if now.is_stepped_down:
        raise stepped_down()
    return raw


def validated(shape: type[_Shape], body: dict[str, Any]) -> _Shape:
    """A body that is decoded already; the same errors as `parsed`."""
    try:
        return shape.model_validate(body)
    except ValidationError as error:
        raise _refused(error) from None


def parsed(shape: type[_Shape], raw: bytes) -> _Shape:
    """A body. Raises `UserError` naming the first field that is wrong."""
    try:
        return shape.model_validate_json(raw)
    except ValidationError as error:
        raise _refused(error) from None


def query(shape: type[_Shape], scope: Scope) -> _Shape:
    """The parameters of a query; the same errors."""
    text = scope["query_string"].decode("latin-1")
    if text.count("&") > _MAX_QUERY_FIELDS:
        raise UserError(Code.INVALID_VALUE, "The query has too many parameters: send fewer.")
    pairs = parse_qsl(text, keep_blank_values=True)
    given = dict(pairs)
    if len(given) < len(pairs):
        raise UserError(Code.INVALID_VALUE, "A parameter of the query is sent twice: send it once.")
    try:
        return shape.model_validate(given)
    except ValidationError as error:
        raise _refused(error, "query") from None


def _refused(error: ValidationError, whole: str = "body") -> UserError:
    problem = error.errors(include_url=False, include_input=False)[0]
    if problem["type"] == "json_invalid":
        return UserError(Code.INVALID_JSON, "The body is not valid JSON: correct it.")
    param = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return UserError(
            Code.UNKNOWN_PARAMETER, f"There is no parameter {param[:60]!r}: remove it.", param=param
        )
    said = problem["msg"].removeprefix("Value error, ")
    return UserError(Code.INVALID_VALUE, f"{param or whole}: {said}.", param=param)
