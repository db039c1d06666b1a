"""What the gateway is asked by its own operations, as bodies and queries: read whole into a shape,
or refused by the first field that is wrong."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl

from pydantic import BaseModel, BeforeValidator, ValidationError

from freehold.core.binding import Principal
from freehold.core.errors import Code, UserError
from freehold.secure.keys import stepped_down
from freehold.serve.gateway import Gateway
from freehold.serve.wire import Receive, Scope, read_body

_MAX_BODY_BYTES = 64 * 1024
_MAX_QUERY_FIELDS = 20
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_Shape = TypeVar("_Shape", bound=BaseModel)


def _dated(given: object) -> object:
    """Pydantic would take `0.5` for half a second after 1970, which nobody means."""
    if not _DATE.match(str(given)):
        raise ValueError("must be a time such as 2026-01-31T12:00:00Z")
    return given


Time = Annotated[datetime, BeforeValidator(_dated)]


async def body_of(
    gateway: Gateway,
    scope: Scope,
    receive: Receive,
    principal: Principal,
    key: str,
    most: int = _MAX_BODY_BYTES,
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


def in_us(at: datetime | None) -> int | None:
    if at is None:
        return None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1e6)


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
