"""What of vLLM's server can be reached, and how: the few ways that the gateway goes.

vLLM's own app has many more (`/pause`, `/invocations`, `/load_lora_adapter` …); they are
not here. Nothing of a request passes but what is written down below: no header, no query,
no field with which a caller could choose an adapter or a cache salt.
"""

import hashlib
import json
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from freehold.engines.vllm.shelf import Shelf

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

CHAT, COMPLETIONS, TOKENIZE = "/v1/chat/completions", "/v1/completions", "/tokenize"
UNKNOWN_ADAPTER = "unknown_adapter"
_MOST_BYTES = 64 * 1024 * 1024
_OWN = ("adapter", "cache_salt", "tenant", "priority", "model")
_TOO_LONG = ("input_tokens", "input_text")
_LIMITS = ("max_tokens", "max_completion_tokens")


class Door:
    """The ASGI app that the socket serves; `app` is vLLM's."""

    def __init__(self, app: App, base: str, shelf: Shelf) -> None:
        self._app = app
        self._base = base
        self._shelf = shelf
        self._ways: dict[tuple[str, str], Callable[[Message, Receive, Send], Awaitable[None]]] = {
            ("GET", "/v1/models"): self._models,
            ("POST", "/v1/adapters"): self._adapters,
            ("POST", CHAT): self._answer,
            ("POST", COMPLETIONS): self._answer,
            ("POST", TOKENIZE): self._tokenize,
        }

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"nobody asks for {scope['type']}")
        way = self._ways.get((scope["method"], scope["path"]))
        if way is None:
            await _say(send, 404, {"error": {"code": "not_found"}})
        else:
            await way(scope, receive, send)

    async def _models(self, scope: Message, receive: Receive, send: Send) -> None:
        await _say(send, 200, {"object": "list", "data": [{"id": self._base}]})

    async def _adapters(self, scope: Message, receive: Receive, send: Send) -> None:
        body = await _read(receive)
        refused = await self._shelf.change(body["add"], body["drop"])
        await _say(send, 200, {"refused": refused})

    async def _tokenize(self, scope: Message, receive: Receive, send: Send) -> None:
        body = {**await _read(receive), "model": self._base}
        answer = Answer(send, self._base)
        await self._pass(TOKENIZE, body, receive, answer)
        await answer.refuse()

    async def _answer(self, scope: Message, receive: Receive, send: Send) -> None:
        told = await _read(receive)
        adapter = told.get("adapter")
        if adapter is not None and not (isinstance(adapter, str) and adapter in self._shelf):
            await _say(send, 404, {"error": {"code": UNKNOWN_ADAPTER}})
            return
        body = {name: value for name, value in told.items() if name not in _OWN}
        body["model"] = adapter or self._base
        body["cache_salt"] = _salt(told.get("cache_salt"))
        with self._shelf.used(adapter):
            answer = Answer(send, self._base)
            await self._pass(scope["path"], body, receive, answer)
            if answer.is_too_long and any(name in body for name in _LIMITS):
                # With its limit it does not fit; the context's end is then the nearer one.
                body = {name: value for name, value in body.items() if name not in _LIMITS}
                answer = Answer(send, self._base)
                await self._pass(scope["path"], body, receive, answer)
            await answer.refuse()

    async def _pass(
        self, path: str, body: dict[str, Any], receive: Receive, answer: "Answer"
    ) -> None:
        content = json.dumps(body).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(content)).encode()),
        ]
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST",
            "scheme": "http", "path": path, "raw_path": path.encode(), "root_path": "",
            "query_string": b"", "headers": headers, "client": None, "server": None, "state": {},
        }  # fmt: skip
        is_read = False

        async def give() -> Message:
            nonlocal is_read
            if is_read:
                return await receive()  # the caller's leaving
            is_read = True
            return {"type": "http.request", "body": content, "more_body": False}

        await self._app(scope, give, answer.take)


class Answer:
    """vLLM's answer on its way out: the chunks say which base, and under which adapter as
    far as vLLM says so; of a refusal only what names no content is told."""

    def __init__(self, send: Send, base: str) -> None:
        self._send = send
        self._base = base
        self._status = 0
        self._is_stream = self._has_begun = False
        self._kept = b""
        self._error: dict[str, Any] | None = None

    @property
    def is_too_long(self) -> bool:
        return self._error is not None and self._error.get("param") in _TOO_LONG

    async def take(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            kind = dict(message["headers"]).get(b"content-type", b"")
            self._is_stream = self._status == 200 and kind.startswith(b"text/event-stream")
            return
        data, is_last = self._kept + message.get("body", b""), not message.get("more_body")
        if self._is_stream:
            end = len(data) if is_last else data.rfind(b"\n") + 1
            self._kept = data[end:]
            await self._pass_on(data[:end].split(b"\n"), is_last)
            return
        self._kept = data
        if not is_last:
            return
        content = json.loads(data or b"{}")
        if self._status == 200:
            await _say(self._send, 200, self._named(content))
        else:
            self._error = _error_of(content)

    async def _pass_on(self, lines: list[bytes], is_last: bool) -> None:
        """vLLM begins a stream before it looks at all of a request: what it finds then is a
        refusal like any other."""
        if self._error is not None or not (self._has_begun or is_last or any(lines)):
            return
        if not self._has_begun:
            events = (json.loads(line[6:]) for line in lines if _is_event(line))
            first: dict[str, Any] = next(events, {})
            if "error" in first:
                self._error = _error_of(first)
                code = self._error.get("code")
                self._status = code if isinstance(code, int) and 400 <= code < 600 else 500
                return
            self._has_begun = True
            headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        body = b"\n".join(self._line(line) for line in lines)
        await self._send({"type": "http.response.body", "body": body, "more_body": not is_last})

    async def refuse(self) -> None:
        """Tells the refusal, if there was one."""
        if self._error is None:
            return
        if self.is_too_long:
            await _say(self._send, 400, {"error": {"code": "context_length_exceeded"}})
            return
        param = self._error.get("param")
        error = {"code": "refused", "param": param if isinstance(param, str) else None}
        await _say(self._send, self._status, {"error": error})

    def _line(self, line: bytes) -> bytes:
        if not _is_event(line):
            return line
        return b"data: " + json.dumps(self._named(json.loads(line[6:]))).encode()

    def _named(self, content: dict[str, Any]) -> dict[str, Any]:
        """`model` is what vLLM calls the weights that it answers with: the base's digest, or
        an adapter's of that base."""
        said = content.get("model")
        named = {**content, "model": self._base, "adapter": None if said == self._base else said}
        if named.get("usage"):
            named["usage"] = _usage(named["usage"])
        return named


def _is_event(line: bytes) -> bool:
    return line.startswith(b"data: {")


def _usage(said: dict[str, Any]) -> dict[str, Any]:
    """OpenAI's part of it, which is then the same of an answer whole or in chunks."""
    cached = (said.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    return {
        **{name: said[name] for name in names if name in said},
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def _salt(told: Any) -> str:
    """As vLLM takes it. A call without a salt shares its prefix with nobody."""
    return hashlib.sha256(told.encode()).hexdigest() if told else secrets.token_hex(32)


def _error_of(content: Any) -> dict[str, Any]:
    error = content.get("error") if isinstance(content, dict) else None
    return error if isinstance(error, dict) else {}


async def _read(receive: Receive) -> dict[str, Any]:
    parts: list[bytes] = []
    size, is_last = 0, False
    while not is_last:
        message = await receive()
        if message["type"] != "http.request":
            raise ConnectionError("the caller left")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > _MOST_BYTES:
            raise ValueError("an endless request")
        is_last = not message.get("more_body")
    body: dict[str, Any] = json.loads(b"".join(parts))
    return body


async def _say(send: Send, status: int, content: Any) -> None:
    data = json.dumps(content).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(data)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": data})
