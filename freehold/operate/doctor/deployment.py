"""A running gateway as its clients see it, and guests in it: tenants that are made for a
check and go with it."""

import asyncio
import contextlib
import re
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx2
import orjson

from freehold.core.errors import Code, UserError

# Nobody else's tenants are called so: what is found under it is of a run that was killed.
_GUEST = re.compile(r"freehold-doctor-[0-9a-f]{12}-(host|guest)\Z")
_TIMEOUT_S = 180


@dataclass(frozen=True, slots=True)
class Said:
    status: int
    text: str
    headers: Mapping[str, str]
    took_s: float

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class Guest:
    """A tenant with a key that uses models and administers it."""

    id: str
    name: str
    environment: str
    key: str
    key_id: str


class Deployment:
    """`operator` is a credential that administers the installation."""

    def __init__(self, http: httpx2.AsyncClient, operator: str) -> None:
        self._http = http
        self._operator = operator

    async def ask(
        self,
        key: str | None,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Said:
        """`path` may have a query. What does not answer raises `UserError`."""
        sent = dict(headers or {})
        if key is not None:
            sent["authorization"] = f"Bearer {key}"
        begun = time.perf_counter()
        try:
            answer = await self._http.request(method, path, json=body, headers=sent)
        except httpx2.HTTPError as error:
            raise UserError(
                Code.GATEWAY_NOT_RUNNING,
                f"The gateway does not answer {method} {path.partition('?')[0]} "
                f"({type(error).__name__}): see `freehold status` and its log.",
            ) from None
        took_s = time.perf_counter() - begun
        return Said(answer.status_code, answer.text, answer.headers, took_s)

    async def first_token_s(self, key: str, model: str, text: str) -> float:
        """How long a stream takes until its first part."""
        body = {"model": model, "messages": _messages(text), "stream": True, "max_tokens": 1}
        headers = {"authorization": f"Bearer {key}"}
        begun = time.perf_counter()
        try:
            async with self._http.stream(
                "POST", "/v1/chat/completions", json=body, headers=headers
            ) as answer:
                parts = answer.aiter_bytes()
                await anext(parts)
                took_s = time.perf_counter() - begun
                async for _ in parts:
                    pass
        except (httpx2.HTTPError, StopAsyncIteration):
            raise UserError(
                Code.ENGINE_FAILED, f"{model} broke off an answer: see `freehold status`."
            ) from None
        return took_s

    async def chat(self, key: str, model: str, text: str, **fields: Any) -> Said:
        body = {"model": model, "messages": _messages(text), "max_tokens": 16, **fields}
        return await self.ask(key, "POST", "/v1/chat/completions", body)

    async def operate(self, method: str, path: str, body: Any = None) -> Any:
        """As who runs the installation. Raises `UserError` with the gateway's own sentence."""
        said = await self.ask(self._operator, method, path, body)
        return _content(said)

    # guests

    async def remove_left_overs(self) -> int:
        """Of runs that were killed."""
        found = (await self.operate("GET", "/admin/v1/tenants"))["data"]
        left = [each["id"] for each in found if _GUEST.match(each["name"])]
        for tenant_id in left:
            await self._remove(tenant_id)
        return len(left)

    @contextlib.asynccontextmanager
    async def guests(self, environment: str) -> AsyncIterator[tuple[Guest, Guest]]:
        """Two tenants, removed in the end with all that they have."""
        run, made = secrets.token_hex(6), list[str]()
        try:
            guests = []
            for role in ("host", "guest"):
                name = f"freehold-doctor-{run}-{role}"
                tenant = await self.operate("POST", "/admin/v1/tenants", {"name": name})
                made.append(tenant["id"])
                key = await self.key_for(tenant["id"], environment, "infer", "admin")
                guests.append(Guest(tenant["id"], name, environment, key["key"], key["id"]))
            yield guests[0], guests[1]
        finally:
            await asyncio.shield(self._remove_all(made))

    async def key_for(self, tenant_id: str, environment: str, *scopes: str) -> dict[str, Any]:
        wanted = {
            "name": "freehold-doctor",
            "tenant": tenant_id,
            "environment": environment,
            "scopes": scopes,
            "expires_in_days": 1,
        }
        made: dict[str, Any] = await self.operate("POST", "/admin/v1/keys", wanted)
        return made

    async def _remove_all(self, tenant_ids: list[str]) -> None:
        for tenant_id in tenant_ids:
            await self._remove(tenant_id)

    async def _remove(self, tenant_id: str) -> None:
        said = await self.ask(
            self._operator, "DELETE", f"/admin/v1/tenants/{quoted(tenant_id)}?force=true"
        )
        if said.status != 404:  # it is gone already
            _content(said)


@contextlib.asynccontextmanager
async def reached(
    url: str, operator: str, verify: ssl.SSLContext | bool = True
) -> AsyncIterator[Deployment]:
    async with httpx2.AsyncClient(
        base_url=url, timeout=_TIMEOUT_S, trust_env=False, verify=verify
    ) as http:
        yield Deployment(http, operator)


def quoted(name: str) -> str:
    return quote(name, safe="").replace(".", "%2E")


def _content(said: Said) -> Any:
    try:
        content = orjson.loads(said.text)
        if said.is_success:
            return content
        error = content["error"]
        raise UserError(Code(error["code"]), error["message"])
    except (ValueError, KeyError, TypeError):
        raise UserError(
            Code.GATEWAY_NOT_RUNNING,
            "What answers there is no gateway of this version: start it again.",
        ) from None


def _messages(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]
