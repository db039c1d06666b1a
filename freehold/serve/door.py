"""The outermost callable: checks the Host, names the request, ends every error well."""

import logging
from collections.abc import Iterable, MutableMapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from freehold.core.errors import Code, Fault, FreeholdError, UserError
from freehold.core.ids import new_id
from freehold.serve.wire import ClientGone, Header, Receive, Scope, Send, header, reply_error

_log = logging.getLogger(__name__)
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})


class Door:
    """Wraps the router. `scope["freehold.request_id"]` is set for everything inside,
    and each response carries it. A response that has begun is never begun again: an
    error after that point cuts the connection, which no client takes for an answer."""

    def __init__(self, router: ASGIApp, allowed_hosts: Iterable[str]) -> None:
        self._router = router
        self._hosts = _LOOPBACK | {host.lower() for host in allowed_hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._router(scope, receive, send)
            return
        request_id = new_id("req")
        scope["freehold.request_id"] = request_id
        scope["app"] = self  # makes the router raise instead of answering by itself
        opener = _Opener(send, request_id)
        try:
            self._check_host(scope)
            if "\n" in scope["path"]:  # the router would take it for the path without
                raise _not_found()
            await self._router(scope, receive, opener)
        except ClientGone:
            return
        except FreeholdError as error:
            if isinstance(error, Fault):
                _log.error("fault", extra={"request_id": request_id, "reason": error.message})
            await opener.fail(error)
        except HTTPException as error:
            await opener.fail(_of_http(error), _allowed(error))
        except Exception as error:  # noqa: BLE001 - the process boundary
            _log.exception("unexpected", extra={"request_id": request_id})
            await opener.fail(Fault(repr(error)))

    def _check_host(self, scope: Scope) -> None:
        host = (header(scope, b"host") or "").lower()
        name, colon, port = host.rpartition(":") if not host.endswith("]") else (host, "", "")
        if not colon:
            name = host
        is_sound = not colon or (port.isascii() and port.isdigit())
        if "*" not in self._hosts and not (is_sound and name in self._hosts):
            raise UserError(
                Code.HOST_NOT_ALLOWED,
                "This host name is not served here: add it to server.allowed_hosts.",
            )


class _Opener:
    """Adds the request id, and remembers whether the response has begun."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._headers: list[Header] = [(b"x-freehold-request-id", request_id.encode())]
        self._begun = False

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self._begun = True
            message["headers"] = [*message["headers"], *self._headers]
        await self._send(message)

    async def fail(self, error: FreeholdError, headers: Iterable[Header] = ()) -> None:
        if self._begun:
            raise ConnectionAbortedError(error.code.value)
        await reply_error(self._send, error, [*self._headers, *headers])


def _allowed(error: HTTPException) -> list[Header]:
    """The methods that a path knows, for who used another."""
    allow = (error.headers or {}).get("Allow")
    return [(b"allow", allow.encode())] if allow else []


def _of_http(error: HTTPException) -> UserError:
    if error.status_code == 405:
        return UserError(
            Code.METHOD_NOT_ALLOWED, "This method is not allowed here: see GET /openapi.json."
        )
    return _not_found()


def _not_found() -> UserError:
    return UserError(Code.NOT_FOUND, "There is nothing at this path: see GET /openapi.json.")
