"""The gateway's client of anything that speaks OpenAI's HTTP: our own engine
processes on a unix socket, and remote upstreams.

The other side is not trusted: sizes are bounded, redirects are not followed, its
error texts are never quoted, and a connection that was left early is closed, never
given to another request.
"""

import asyncio
import errno
import io
import re
import ssl
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Protocol

import aiohttp
import orjson
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from freehold.core.engine import EMBEDDINGS, AdapterFiles, EngineCall
from freehold.core.errors import Code, UserError
from freehold.core.secret import Secret
from freehold.engines import unix_http
from freehold.engines.base import Answer

_MAX_EVENT_BYTES = 1024 * 1024
_MAX_CHOICES, _MAX_INTERIM = 128, 32  # in a chunk; answers before the answer
_MAX_ANSWER_BYTES = 16 * 1024 * 1024
_MAX_BODY_BYTES = 64 * 1024 * 1024  # embeddings, and our own engines' tokens
_MAX_ERROR_BYTES = 64 * 1024
_MAX_HEADER_BYTES = 16 * 1024
_READ_AHEAD_BYTES = 8 * 1024  # of an answer that its client does not take
_CONNECT_S = 10.0
_AT_ONCE_BYTES = 1024 * 1024
_PART_BYTES = 256 * 1024
_NOBODY_LISTENS = (FileNotFoundError, ConnectionRefusedError, TimeoutError)
_WE_ARE_SHORT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_IDENTIFIER = re.compile(r"[A-Za-z0-9_.\[\]-]{1,64}\Z")


class _Readable(Protocol):
    async def read(self, most: int, /) -> bytes: ...


class SseAnswer:
    """Reads server-sent events; each `read` gives all that one network read held."""

    def __init__(self, content: "_Readable", who: str) -> None:
        self._content = content
        self._who = who
        self._rest = b""
        self.is_done = False

    async def read(self) -> list[dict[str, Any]] | None:
        while not self.is_done:
            try:
                data = await self._content.read(_READ_AHEAD_BYTES)
            except (aiohttp.ClientError, ValueError) as error:
                raise failed(self._who, "broke off its answer") from error
            if not data:
                raise failed(self._who, "ended its answer too early")
            chunks = self._parse(data)
            if chunks:
                return chunks
        return None

    def _parse(self, data: bytes) -> list[dict[str, Any]]:
        buffer = self._rest + data if self._rest else data
        end = buffer.rfind(b"\n")
        self._rest = buffer[end + 1 :]
        if len(self._rest) > _MAX_EVENT_BYTES:
            raise failed(self._who, "sent an endless line")
        chunks: list[dict[str, Any]] = []
        for line in buffer[: end + 1].split(b"\n"):
            if not line.startswith(b"data:"):
                continue  # comments, empty lines, event names
            payload = line[5:].strip()
            if payload == b"[DONE]":
                self.is_done = True
                break
            chunks.append(self._chunk(payload))
        return chunks

    def _chunk(self, payload: bytes) -> dict[str, Any]:
        try:
            chunk = orjson.loads(payload)
        except orjson.JSONDecodeError:
            raise failed(self._who, "sent what is no JSON") from None
        if not isinstance(chunk, dict):
            raise failed(self._who, "sent what is no chunk")
        if "error" in chunk:
            raise failed(self._who, "reported an error in the middle of its answer")
        choices, usage = chunk.get("choices"), chunk.get("usage")
        if not isinstance(choices, list) or not isinstance(usage, dict | None):
            raise failed(self._who, "sent what is no chunk")
        if len(choices) > _MAX_CHOICES or not all(map(_is_choice, choices)):
            raise failed(self._who, "sent what is no chunk")
        return chunk


def _is_choice(choice: Any) -> bool:
    if not isinstance(choice, dict) or not isinstance(choice.get("index", 0), int):
        return False
    delta = choice.get("delta")
    return delta is None or isinstance(delta, dict)


_Response = aiohttp.ClientResponse | unix_http.Response


class _Wary(ResponseHandler):
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if len(self) > _MAX_INTERIM:
            self.close()
            self._buffer.clear()
            self.set_exception(aiohttp.ClientPayloadError("endless interim answers"))


class _WaryConnector(aiohttp.TCPConnector):
    """Uses no kept connection on which something came while nobody had asked: the next
    request would take it for its own answer. Ends one that answers without an end
    before its answer: the library would keep all of that in memory."""

    def __init__(self, limit: int, trust: ssl.SSLContext | None) -> None:
        super().__init__(limit=limit, ssl=trust or ssl.create_default_context())
        self._factory = partial(_Wary, loop=asyncio.get_running_loop())  # type: ignore[assignment]

    async def _get(self, key: Any, traces: list[Any]) -> Any:
        while (found := await super()._get(key, traces)) is not None:
            if found.protocol is not None and not found.protocol.should_close:
                return found
            found.close()
        return None


class OpenAIHttp:
    """One origin and its connections. Safe for any number of calls at once."""

    def __init__(
        self,
        base_url: str,
        *,
        who: str,
        socket_path: str | None = None,
        credential: Secret | None = None,
        extra_body: Mapping[str, Mapping[str, Any]] | None = None,
        is_upstream: bool = False,
        concurrency: int = 0,
        proxy: str | None = None,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        """`who` names the origin in error sentences; `extra_body` holds, for an
        endpoint, fields of the engine's own that every call must carry."""
        self._base_url = base_url
        self._who = who
        self._socket_path = socket_path
        self._extra = extra_body or {}
        self._is_upstream = is_upstream
        self._concurrency = concurrency
        self._proxy = proxy
        self._trust = trust
        self._headers = {"content-type": "application/json"}
        if credential is not None:
            self._headers["authorization"] = f"Bearer {credential.reveal()}"
        self._session: aiohttp.ClientSession | None = None
        self._urls: dict[str, URL] = {}

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=_WaryConnector(self._concurrency, self._trust),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=True,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
                max_line_size=_MAX_HEADER_BYTES,
                max_field_size=_MAX_HEADER_BYTES,
                read_bufsize=_READ_AHEAD_BYTES,
                trust_env=False,  # it would read ~/.netrc in a thread on every request
                headers=self._headers,
            )
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    # calls

    def own_fields(self, call: EngineCall) -> Mapping[str, Any]:
        """What the call carries beside OpenAI's fields; never a client's."""
        return self._extra.get(call.endpoint, {})

    @asynccontextmanager
    async def stream(self, call: EngineCall) -> AsyncIterator[Answer]:
        body = {
            **call.body,
            **self.own_fields(call),
            "model": call.model,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        response = await self._post(call.endpoint, body)
        try:
            if not response.content_type.startswith("text/event-stream"):
                raise failed(self._who, "did not stream")
            answer = SseAnswer(response.content, self._who)
            yield answer
            if answer.is_done and self._socket_path is None:  # those are never kept
                await _exhaust(response)
        finally:
            response.close()

    async def whole(self, call: EngineCall) -> dict[str, Any]:
        body = {**call.body, **self.own_fields(call), "model": call.model}
        response = await self._post(call.endpoint, body)
        try:
            limit = _MAX_BODY_BYTES if call.endpoint == EMBEDDINGS else _MAX_ANSWER_BYTES
            return _object(await self._read(response, limit), self._who)
        finally:
            response.release()

    async def post_json(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """A call outside OpenAI's endpoints, such as an engine's tokenizer."""
        response = await self._post(path, body)
        try:
            return _object(await self._read(response, _MAX_BODY_BYTES), self._who)
        finally:
            response.release()

    async def get_json(self, path: str) -> dict[str, Any]:
        return _object(await self._get(path), self._who)

    async def get_list(self, path: str) -> list[Any]:
        found = _decoded(await self._get(path), self._who)
        if not isinstance(found, list):
            raise failed(self._who, "sent what is no answer")
        return found

    async def identity(self) -> str | None:
        """The name of the one model that a process of ours serves: its digest."""
        models = (await self.get_json("models")).get("data")
        if not isinstance(models, list) or not models or not isinstance(models[0], dict):
            return None
        found = models[0].get("id")
        return found if isinstance(found, str) else None

    async def change_adapters(
        self, add: Sequence[AdapterFiles], drop: Collection[str]
    ) -> Mapping[str, str]:
        raise UserError(
            Code.UNSUPPORTED_PARAMETER,
            f"{self._who} cannot answer under adapters: choose an engine that can.",
        )

    async def _get(self, path: str) -> bytes:
        response = await self._request("GET", path, None)
        try:
            return await self._read(response, _MAX_BODY_BYTES)
        finally:
            response.release()

    async def _post(self, path: str, body: Mapping[str, Any]) -> _Response:
        return await self._request("POST", path, orjson.dumps(body))

    async def _request(self, method: str, path: str, content: bytes | None) -> _Response:
        url = self._urls.get(path)
        if url is None:
            url = self._urls[path] = URL(f"{self._base_url}/{path}")
        try:
            if self._socket_path is None:
                response: _Response = await self._open_session().request(
                    method, url, data=_body(content), allow_redirects=False, proxy=self._proxy
                )
            else:
                response = await unix_http.request(
                    self._socket_path, method, url.path, self._headers, content, _READ_AHEAD_BYTES
                )
        except (aiohttp.ClientConnectorError, *_NOBODY_LISTENS) as error:
            if getattr(error, "errno", None) in _WE_ARE_SHORT:
                raise _short() from None
            raise UserError(
                Code.ENGINE_UNAVAILABLE,
                f"{self._who} does not answer: try again.",
                retry_after_s=2,
            ) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if getattr(error, "errno", None) in _WE_ARE_SHORT:
                raise _short() from None
            raise failed(self._who, "broke the connection") from None
        if response.status != 200:
            try:
                raise await self._refusal(response)
            finally:
                response.close()
        return response

    async def _read(self, response: _Response, limit: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        try:
            while data := await response.content.read(_PART_BYTES):
                parts.append(data)
                size += len(data)
                if size > limit:
                    response.close()
                    raise failed(self._who, "sent an endless answer")
        except (aiohttp.ClientError, ValueError):
            raise failed(self._who, "broke off its answer") from None
        return b"".join(parts)

    # errors

    async def _refusal(self, response: _Response) -> UserError:
        """What a status other than 200 means for the caller. Only plain identifiers
        and numbers of the error body are used; its text may hold anything."""
        try:
            async with asyncio.timeout(_CONNECT_S):
                error = _error_of(await self._read(response, _MAX_ERROR_BYTES))
        except (UserError, TimeoutError):
            error = {}
        status = response.status
        if error.get("type") == "exceed_context_size_error":
            return _too_long(error.get("n_prompt_tokens"), error.get("n_ctx"))
        if error.get("code") == "context_length_exceeded":
            return _too_long(None, None)
        if status in (400, 404, 413, 422):
            return self.bad_request(status, error)
        if self._is_upstream and status in (401, 403):
            return UserError(
                Code.UPSTREAM_REFUSED,
                f"{self._who} refuses the credential that this gateway is configured with: "
                "its operator must renew it.",
            )
        if self._is_upstream and status == 429:
            return UserError(
                Code.UPSTREAM_RATE_LIMITED,
                f"{self._who} limits the rate of requests: try again later.",
                retry_after_s=_retry_after(response),
            )
        if status == 503:
            return UserError(
                Code.ENGINE_UNAVAILABLE,
                f"{self._who} is not ready: try again.",
                retry_after_s=_retry_after(response),
            )
        return failed(self._who, f"answered with status {status}")

    def bad_request(self, status: int, error: dict[str, Any]) -> UserError:
        """The error for a call that the engine says it cannot take."""
        if self._is_upstream and status == 404:
            return UserError(
                Code.UPSTREAM_REFUSED,
                f"{self._who} does not know the model that this route names: "
                "its operator must correct the route.",
            )
        param, reason = error.get("param"), error.get("code")
        named = param if isinstance(param, str) and _IDENTIFIER.match(param) else None
        why = f" ({reason})" if isinstance(reason, str) and _IDENTIFIER.match(reason) else ""
        what = f"the parameter {named!r}" if named else "the request"
        return UserError(
            Code.INVALID_VALUE, f"{self._who} cannot take {what}{why}: change it.", param=named
        )


def _body(content: bytes | None) -> bytes | io.BytesIO | None:
    """A large body is written in parts: at once it would hold up the event loop."""
    return io.BytesIO(content) if content and len(content) > _AT_ONCE_BYTES else content


async def _exhaust(response: _Response) -> None:
    """Reads what follows `[DONE]`, so that the connection can serve again. What
    does not end at once is closed instead."""
    try:
        async with asyncio.timeout(0.5):
            while await response.content.read(_PART_BYTES):
                pass
    except (TimeoutError, aiohttp.ClientError, ValueError):
        response.close()


def _short() -> UserError:
    """Nobody's fault but our own: the engine must not be blamed for it."""
    return UserError(
        Code.OVERLOADED, "The gateway is out of files or memory: try again.", retry_after_s=1
    )


def failed(who: str, what: str) -> UserError:
    return UserError(Code.ENGINE_FAILED, f"{who} {what}: try again.")


def _too_long(tokens: Any, limit: Any) -> UserError:
    if isinstance(tokens, int) and isinstance(limit, int):
        text = f"The prompt has {tokens:,} tokens and this model's context holds {limit:,}"
    else:
        text = "The prompt is longer than this model's context"
    return UserError(Code.CONTEXT_LENGTH_EXCEEDED, f"{text}: shorten it.", param="messages")


def _decoded(content: bytes, who: str) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        raise failed(who, "sent what is no JSON") from None


def _object(content: bytes, who: str) -> dict[str, Any]:
    decoded = _decoded(content, who)
    if not isinstance(decoded, dict):
        raise failed(who, "sent what is no answer")
    return decoded


def _error_of(content: bytes) -> dict[str, Any]:
    try:
        decoded = orjson.loads(content)
    except orjson.JSONDecodeError:
        return {}
    error = decoded.get("error") if isinstance(decoded, dict) else None
    return error if isinstance(error, dict) else {}


def _retry_after(response: _Response) -> float:
    text = response.headers.get("retry-after", "")
    return min(float(text), 3600.0) if text.isascii() and text.isdigit() else 2.0
