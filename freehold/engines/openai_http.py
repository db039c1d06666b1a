"""The gateway's client of anything that speaks OpenAI's HTTP: our own engine
processes on a unix socket, and remote upstreams.

The other side is not trusted: sizes are bounded, redirects are not followed, its
error texts are never quoted, and a connection that was left early is closed, never
given to another request.
"""

import asyncio
import errno
import re
import ssl
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

import orjson

from freehold.core.engine import EMBEDDINGS, AdapterFiles, EngineCall
from freehold.core.errors import Code, UserError
from freehold.core.secret import Secret
from freehold.engines.base import Answer
from freehold.engines.http1 import BrokenAnswer, Response
from freehold.engines.origin import Origin, Unreachable

_MAX_EVENT_BYTES = 1024 * 1024
_MAX_CHOICES = 128  # in a chunk
_MAX_ANSWER_BYTES = 16 * 1024 * 1024
_MAX_BODY_BYTES = 64 * 1024 * 1024  # embeddings, and our own engines' tokens
_MAX_ERROR_BYTES = 64 * 1024
_READ_AHEAD_BYTES = 8 * 1024  # of an answer that its client does not take
_CONNECT_S = 10.0
_PART_BYTES = 256 * 1024
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
            except BrokenAnswer as error:
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
        proxy: str | None = None,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        """`who` names the origin in error sentences; `extra_body` holds, for an
        endpoint, fields of the engine's own that every call must carry."""
        self._who = who
        self._extra = extra_body or {}
        self._is_upstream = is_upstream
        headers = {"content-type": "application/json"}
        if credential is not None:
            headers["authorization"] = f"Bearer {credential.reveal()}"
        self._origin = Origin(
            base_url, headers, _READ_AHEAD_BYTES, socket_path=socket_path, trust=trust, proxy=proxy
        )

    async def close(self) -> None:
        self._origin.close()
        await asyncio.sleep(0)  # connections end in the loop's next round

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
            answer = SseAnswer(response, self._who)
            yield answer
            if answer.is_done and self._origin.keeps_connections:
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
            response.close()

    async def post_json(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """A call outside OpenAI's endpoints, such as an engine's tokenizer."""
        response = await self._post(path, body)
        try:
            return _object(await self._read(response, _MAX_BODY_BYTES), self._who)
        finally:
            response.close()

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
        response = await self._request("GET", path, b"")
        try:
            return await self._read(response, _MAX_BODY_BYTES)
        finally:
            response.close()

    async def _post(self, path: str, body: Mapping[str, Any]) -> Response:
        return await self._request("POST", path, orjson.dumps(body))

    async def _request(self, method: str, path: str, content: bytes) -> Response:
        try:
            response = await self._origin.request(method, path, content)
        except Unreachable as error:
            raise self._unreachable(error) from None
        except BrokenAnswer:
            raise failed(self._who, "broke the connection") from None
        if response.status != 200:
            try:
                raise await self._refusal(response)
            finally:
                response.close()
        return response

    async def _read(self, response: Response, limit: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        try:
            while data := await response.read(_PART_BYTES):
                parts.append(data)
                size += len(data)
                if size > limit:
                    response.close()
                    raise failed(self._who, "sent an endless answer")
        except BrokenAnswer:
            raise failed(self._who, "broke off its answer") from None
        return b"".join(parts)

    # errors

    def _unreachable(self, error: Unreachable) -> UserError:
        if error.errno in _WE_ARE_SHORT:
            return _short()
        why = "does not answer: try again"
        if error.is_distrusted:
            why = (
                "shows a certificate that is not trusted here: its operator must put the "
                "authority that signed it into network.ca_file"
            )
        return UserError(Code.ENGINE_UNAVAILABLE, f"{self._who} {why}.", retry_after_s=2)

    async def _refusal(self, response: Response) -> UserError:
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


async def _exhaust(response: Response) -> None:
    """Reads what follows `[DONE]`, so that the connection can serve again. What
    does not end at once is closed instead."""
    try:
        async with asyncio.timeout(0.5):
            while await response.read(_PART_BYTES):
                pass
    except (TimeoutError, BrokenAnswer):
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


def _retry_after(response: Response) -> float:
    text = response.headers.get("retry-after", "")
    return min(float(text), 3600.0) if text.isascii() and text.isdigit() else 2.0
