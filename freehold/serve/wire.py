"""ASGI as the gateway uses it: plain callables, bounded bodies, whole replies."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any

import orjson

from freehold.core.errors import Code, FreeholdError, UserError
from freehold.serve import errors
from freehold.serve.room import Room

if TYPE_CHECKING:  # uvicorn's, which what only validates a body does without
    from freehold.serve.connection import Connection

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Header = tuple[bytes, bytes]

_BODY_S = 60.0


class ClientGone(Exception):
    """The client closed its connection before its request was whole."""


def header(scope: Scope, name: bytes) -> str | None:
    """The value of a request header; None when absent. Two values are an error,
    because two readers could then disagree about which one counts."""
    named = scope.get("freehold.headers")
    if named is None:  # a request is asked for a dozen of them
        named = scope["freehold.headers"] = {}
        for key, value in scope["headers"]:
            named.setdefault(key, []).append(value)
    found = named.get(name)
    if found is None:
        return None
    if len(found) > 1:
        raise UserError(
            Code.INVALID_VALUE, f"The header {name.decode()!r} is sent twice: send it once."
        )
    text: str = found[0].decode("latin-1")
    return text


async def read_body(
    scope: Scope, receive: Receive, limit: int, room: Room, setting: str | None = None
) -> bytes:
    """The whole body, whose size the caller gives back to `room` in the end. Raises
    `REQUEST_TOO_LARGE` or `OVERLOADED` as soon as that is certain, by the announced
    length before a byte is read. `setting` is what the limit is from."""
    announced = header(scope, b"content-length")
    if announced is not None and announced.isdigit():
        if int(announced) > limit:
            raise _too_large(limit, setting)
        room.check(int(announced))
    found: Connection | None = scope.get("freehold.connection")
    if found is not None and found.has_whole_body:  # a timer costs as much as the rest
        return await _read_parts(receive, limit, room, setting)
    try:
        async with asyncio.timeout(_BODY_S):
            return await _read_parts(receive, limit, room, setting)
    except TimeoutError:
        raise UserError(
            Code.CLIENT_TOO_SLOW, f"The body did not arrive within {_BODY_S:.0f} seconds."
        ) from None


async def _read_parts(receive: Receive, limit: int, room: Room, setting: str | None) -> bytes:
    parts: list[bytes] = []
    size = 0
    try:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            part: bytes = message.get("body", b"")
            parts.append(part)
            size += len(part)
            room.take(len(part), size)
            if size > limit:
                raise _too_large(limit, setting)
            if not message.get("more_body", False):
                return b"".join(parts)
    except BaseException:
        room.give_back(size)
        raise


def _too_large(limit: int, setting: str | None) -> UserError:
    more = "" if setting is None else f", or raise {setting}"
    return UserError(
        Code.REQUEST_TOO_LARGE,
        f"The body is larger than the {limit:,} bytes that it may have: send less{more}.",
    )


async def reply(send: Send, status: int, content: bytes, headers: Iterable[Header] = ()) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", b"%d" % len(content)),
                *headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": content})


async def reply_json(
    send: Send, content: Any, status: int = 200, headers: Iterable[Header] = ()
) -> None:
    await reply(send, status, orjson.dumps(content), headers)


async def reply_error(send: Send, error: FreeholdError, headers: Iterable[Header] = ()) -> None:
    status, own, content = errors.response_of(error)
    await send({"type": "http.response.start", "status": status, "headers": [*own, *headers]})
    await send({"type": "http.response.body", "body": content})
