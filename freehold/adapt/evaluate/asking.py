"""Asks routes through the gateway's OpenAI API, as any client does: some at once, and again
where waiting helps."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx2

from freehold.adapt.evaluate.example import Answer, Call
from freehold.config.trust import Where
from freehold.core.errors import Code, UserError

_READ_S = 600.0
_MOST_WAIT_S = 60.0
_AWAY_S, _LOOK_S = 600.0, 1.0
_OFTEN, _SELDOM = 8, 3
# How often a request is tried that was answered so. Others are the same the next time.
_TRIES = {
    Code.OVERLOADED: _OFTEN,
    Code.RATE_LIMITED: _OFTEN,
    Code.UPSTREAM_RATE_LIMITED: _OFTEN,
    Code.ENGINE_UNAVAILABLE: _OFTEN,
    Code.ADAPTER_UNAVAILABLE: _OFTEN,
    Code.STORAGE_UNAVAILABLE: _OFTEN,
    Code.AUDIT_UNAVAILABLE: _OFTEN,
    Code.ENGINE_FAILED: _SELDOM,
    Code.ENGINE_TIMEOUT: _SELDOM,
    Code.INTERNAL: _SELDOM,
    Code.UPSTREAM_REFUSED: _SELDOM,
}
# What says something of one example, and not of the route: the example fails, and the others
# are asked.
_OF_ONE = {
    Code.CONTEXT_LENGTH_EXCEEDED,
    Code.PROMPT_QUARANTINED,
    Code.REQUEST_TOO_LARGE,
    Code.INVALID_VALUE,
    Code.ENGINE_FAILED,
    Code.ENGINE_TIMEOUT,
    Code.INTERNAL,
    Code.UPSTREAM_REFUSED,
}


@dataclass(frozen=True, slots=True)
class Route:
    """Where an alias led when it was looked up."""

    alias: str
    model_digest: str | None
    adapter_digest: str | None

    @property
    def made_by(self) -> str:
        return f"{self.model_digest or ''}+{self.adapter_digest or ''}"


@dataclass(frozen=True, slots=True)
class Ask:
    """`key` is the same for the same question to the same weights."""

    key: str
    alias: str
    body: Mapping[str, Any]


class Gateway:
    """One that runs, reached with a key for models. With `again` one that is away for a while
    is waited for: it says where the gateway is now."""

    def __init__(
        self,
        url: str,
        key: str,
        verify: ssl.SSLContext | bool,
        at_once: int,
        again: Callable[[], Where] | None = None,
    ) -> None:
        self._at_once = at_once
        self._key = key
        self._again = again
        self._away_since_s: float | None = None
        self._looking = asyncio.Lock()
        self._client = self._client_of(url, verify)

    def _client_of(self, url: str, verify: ssl.SSLContext | bool) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            base_url=url,
            headers={"authorization": f"Bearer {self._key}", "x-freehold-priority": "batch"},
            timeout=httpx2.Timeout(30.0, read=_READ_S),
            trust_env=False,
            verify=verify,
        )

    async def __aenter__(self) -> "Gateway":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def route(self, alias: str) -> Route:
        """Raises `UserError` where it leads nowhere, or to what does not chat."""
        found = await self._call("GET", f"/v1/models/{quote(alias, safe='').replace('.', '%2E')}")
        told = found.content["freehold"]
        if "chat/completions" not in told["endpoints"]:
            raise UserError(
                Code.UNSUPPORTED_ENDPOINT, f"{alias} makes no text: name a route of a chat model."
            )
        return Route(alias, told["model_digest"], told["adapter_digest"])

    async def get(self, path: str, query: Mapping[str, Any]) -> Any:
        """Of the administration, as far as the key may look."""
        return (await self._call("GET", path, query=query)).content

    async def answers(
        self, asks: Iterable[Ask], waits: Callable[[str], None]
    ) -> AsyncIterator[tuple[Ask, Answer]]:
        """In the order in which they come. `waits` hears why nothing comes for a while. Raises
        `UserError` for what would be the same with every other question."""
        left = iter(asks)
        running: set[asyncio.Task[tuple[Ask, Answer]]] = set()
        try:
            while True:
                for ask in left:
                    running.add(asyncio.create_task(self._answer(ask, waits)))
                    if len(running) >= self._at_once:
                        break
                if not running:
                    return
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    yield task.result()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _answer(self, ask: Ask, waits: Callable[[str], None]) -> tuple[Ask, Answer]:
        body, tries = {**ask.body, "model": ask.alias}, 0
        while True:
            tries += 1
            try:
                return ask, _read(await self._call("POST", "/v1/chat/completions", body))
            except UserError as error:
                if tries < _TRIES.get(error.code, 1):
                    wait_s = min(error.retry_after_s or 0.5 * 2**tries, _MOST_WAIT_S)
                    waits(f"{error.code.value}: tried again in {wait_s:.0f} s")
                    await asyncio.sleep(wait_s)
                elif error.code in _OF_ONE:
                    return ask, Answer(error=error.code.value)
                else:
                    raise

    async def _call(
        self, method: str, path: str, body: Any = None, query: Mapping[str, Any] | None = None
    ) -> "_Reply":
        response = await self._sent(method, path, body, query)
        try:
            content = response.json()
            if response.is_error:
                raise _refusal(content, response.headers.get("retry-after"))
        except (ValueError, KeyError, TypeError):
            raise UserError(
                Code.GATEWAY_NOT_RUNNING, "What answers there is no gateway of this version."
            ) from None
        return _Reply(content, response.headers)

    async def _sent(
        self, method: str, path: str, body: Any, query: Mapping[str, Any] | None
    ) -> httpx2.Response:
        while True:
            client = self._client
            try:
                response = await client.request(method, path, json=body, params=query)
            except httpx2.HTTPError:
                await self._look_again(client)
            else:
                self._away_since_s = None
                return response

    async def _look_again(self, used: httpx2.AsyncClient) -> None:
        """Raises `UserError(GATEWAY_NOT_RUNNING)` where nobody waits, or waited long enough."""
        now_s = time.monotonic()
        self._away_since_s = self._away_since_s or now_s
        if self._again is None or now_s - self._away_since_s > _AWAY_S:
            raise UserError(
                Code.GATEWAY_NOT_RUNNING,
                "The connection to the gateway broke: start it again, and give the same command; "
                "it goes on where it was.",
            ) from None
        await asyncio.sleep(_LOOK_S)
        async with self._looking:
            if self._client is used:  # else another request looked already
                self._client = self._client_of(*self._again())
                await used.aclose()


@dataclass(frozen=True, slots=True)
class _Reply:
    content: Any
    headers: Mapping[str, str]


def _refusal(content: Any, retry_after: str | None) -> UserError:
    error = content["error"]
    wait_s = float(retry_after) if retry_after and retry_after.isdigit() else None
    return UserError(
        Code(error["code"]), error["message"], param=error["param"], retry_after_s=wait_s
    )


def _read(reply: _Reply) -> Answer:
    choice, headers = reply.content["choices"][0], reply.headers
    message, usage = choice["message"], reply.content.get("usage") or {}
    model = headers.get("x-freehold-model-digest", "")
    return Answer(
        text=message.get("content") or "",
        calls=tuple(
            Call(each["function"]["name"], each["function"]["arguments"])
            for each in message.get("tool_calls") or ()
        ),
        finish=choice.get("finish_reason") or "",
        tokens_in=usage.get("prompt_tokens", 0),
        tokens_out=usage.get("completion_tokens", 0),
        request_id=headers.get("x-freehold-request-id", ""),
        made_by=f"{model}+{headers.get('x-freehold-adapter-digest', '')}",
    )
