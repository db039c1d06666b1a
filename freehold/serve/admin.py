"""`/admin/v1/*`: what the command line and the console ask of a running gateway."""

import asyncio
import dataclasses
import time
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from freehold.config.schema import Name
from freehold.core.binding import Environment, Principal
from freehold.core.binding import Scope as Right
from freehold.core.clock import Clock
from freehold.core.errors import Code, UserError
from freehold.secure.keys import KeyRequest
from freehold.serve.gateway import Gateway
from freehold.serve.wire import Receive, Scope, Send, read_body, reply_json
from freehold.store.base import KeyRecord

MAX_BODY_BYTES = 64 * 1024
_MAX_DAYS = 3660
_MAX_QUERY_FIELDS = 20
_Shape = TypeVar("_Shape", bound=BaseModel)


class NewKey(BaseModel):
    """A key to be made. `sha256` (64 hex digits) takes over a key of another gateway
    that kept this hash of it; then no key is shown, its owner has it already."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]
    environment: Environment = Environment.DEV
    scopes: Annotated[tuple[Right, ...], Field(min_length=1, max_length=8)] = (Right.INFER,)
    models: Annotated[tuple[Name, ...], Field(max_length=1000)] | None = None
    expires_in_days: Annotated[int, Field(ge=1, le=_MAX_DAYS, strict=True)] | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")] | None = None


class UsageQuery(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    days: Annotated[int, Field(ge=1, le=_MAX_DAYS)] = 30
    key: Annotated[str, Field(max_length=64)] | None = None


class RecordsQuery(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    before: Annotated[str, Field(max_length=64)] | None = None


class Admin:
    """Acts inside the caller's own tenant only."""

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

    async def list_keys(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        records = await asyncio.to_thread(self._gateway.store.keys, principal.tenant_id)
        await reply_json(send, {"data": [shown_key(record) for record in records]})

    async def create_key(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        raw = await read_body(scope, receive, MAX_BODY_BYTES, self._gateway.room)
        self._gateway.room.give_back(len(raw))
        wanted = parsed(NewKey, raw)
        if not set(wanted.scopes) <= principal.scopes:
            raise UserError(
                Code.FORBIDDEN, "A key can only be given scopes that you have.", param="scopes"
            )
        if wanted.environment is not principal.environment:
            raise UserError(
                Code.FORBIDDEN,
                f"Your key belongs to {principal.environment}: make keys for "
                f"{wanted.environment} with a key of that environment.",
                param="environment",
            )
        request = key_request(wanted, principal.tenant_id, self._gateway.clock)
        request = dataclasses.replace(request, models=_attenuated(principal, wanted.models))
        record, minted = await asyncio.to_thread(self._gateway.keyring.mint, request)
        shown = shown_key(record)
        if minted is not None:
            shown["key"] = minted.reveal()
        await reply_json(send, shown, status=201)

    async def revoke_key(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        key_id = scope["path_params"]["key_id"]
        record = await asyncio.to_thread(self._gateway.keyring.revoke, principal.tenant_id, key_id)
        if record is None:
            raise UserError(Code.NOT_FOUND, "There is no such key: see `freehold key list`.")
        await reply_json(send, shown_key(record))

    async def usage(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        asked = query(UsageQuery, scope)
        until_us = self._gateway.clock.wall_us() + 1
        midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        since = midnight - timedelta(days=asked.days - 1)
        await asyncio.to_thread(self._gateway.ledger.flush)
        rows = await asyncio.to_thread(
            self._gateway.store.usage,
            principal.tenant_id,
            int(since.timestamp() * 1e6),
            until_us,
            asked.key,
        )
        await reply_json(send, {"data": [dataclasses.asdict(row) for row in rows]})

    async def records(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        asked = query(RecordsQuery, scope)
        await asyncio.to_thread(self._gateway.ledger.flush)
        rows = await asyncio.to_thread(
            self._gateway.store.records, principal.tenant_id, asked.limit, asked.before
        )
        await reply_json(send, {"data": rows})

    async def list_models(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        cards = [dataclasses.asdict(card) for card in self._gateway.cards.values()]
        await reply_json(send, {"data": cards})


def validated(shape: type[_Shape], body: dict[str, Any]) -> _Shape:
    """A body that is decoded already; the same errors as `parsed`."""
    try:
        return shape.model_validate(body)
    except ValidationError as error:
        raise _refused(error) from None


def key_request(wanted: NewKey, tenant_id: str, clock: Clock) -> KeyRequest:
    expires_at_us = None
    if wanted.expires_in_days is not None:
        expires_at_us = clock.wall_us() + wanted.expires_in_days * 86_400 * 1_000_000
    return KeyRequest(
        tenant_id=tenant_id,
        environment=wanted.environment,
        name=wanted.name,
        scopes=frozenset(wanted.scopes),
        models=None if wanted.models is None else frozenset(wanted.models),
        expires_at_us=expires_at_us,
        sha256=bytes.fromhex(wanted.sha256) if wanted.sha256 else None,
    )


def _attenuated(principal: Principal, wanted: tuple[str, ...] | None) -> frozenset[str] | None:
    """Nobody grants models that they may not use themselves."""
    if wanted is None:
        return principal.models
    if principal.models is not None and not set(wanted) <= principal.models:
        raise UserError(
            Code.FORBIDDEN, "A key can only be given models that you may use.", param="models"
        )
    return frozenset(wanted)


def shown_key(record: KeyRecord) -> dict[str, Any]:
    now_us = time.time_ns() // 1000
    state = "active"
    if record.revoked_at_us is not None:
        state = "revoked"
    elif record.expires_at_us is not None and record.expires_at_us <= now_us:
        state = "expired"
    return {
        "id": record.id,
        "name": record.name,
        "environment": record.environment.value,
        "scopes": sorted(record.scopes),
        "models": None if record.models is None else sorted(record.models),
        "state": state,
        "created_at": rfc3339(record.created_at_us),
        "expires_at": rfc3339(record.expires_at_us),
        "revoked_at": rfc3339(record.revoked_at_us),
    }


def rfc3339(at_us: int | None) -> str | None:
    if at_us is None:
        return None
    return datetime.fromtimestamp(at_us / 1e6, UTC).isoformat().replace("+00:00", "Z")


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
        raise _refused(error) from None


def _refused(error: ValidationError) -> UserError:
    problem = error.errors(include_url=False, include_input=False)[0]
    if problem["type"] == "json_invalid":
        return UserError(Code.INVALID_JSON, "The body is not valid JSON: correct it.")
    param = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return UserError(
            Code.UNKNOWN_PARAMETER, f"There is no parameter {param[:60]!r}: remove it.", param=param
        )
    return UserError(Code.INVALID_VALUE, f"{param or 'body'}: {problem['msg']}.", param=param)
