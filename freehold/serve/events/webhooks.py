"""Events to other services: only where the settings say, signed, and again until they are
taken. Nothing is followed elsewhere, and no answer is read."""

import asyncio
import hashlib
import hmac
import logging
import random
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from freehold.core.clock import Clock, rfc3339
from freehold.core.event import Event, Severity
from freehold.core.secret import Secret
from freehold.store.base import Due, EventStore

_logger = logging.getLogger(__name__)
_TIMEOUT_S = 10
_FIRST_S, _MOST_S = 5.0, 3600.0
_GIVES_UP_AFTER = 30  # more than a day
_AT_ONCE = 20


@dataclass(frozen=True, slots=True)
class Webhook:
    url: str
    secret: Secret
    least: Severity
    tls: ssl.SSLContext | None = None  # None: what this machine trusts

    @property
    def name(self) -> str:
        """In the database, instead of the address."""
        return hashlib.sha256(self.url.encode()).hexdigest()[:16]


class Sender:
    def __init__(self, webhooks: Sequence[Webhook], store: EventStore, clock: Clock) -> None:
        self._webhooks: Mapping[str, Webhook] = {each.name: each for each in webhooks}
        self._store = store
        self._clock = clock

    def names(self) -> Sequence[str]:
        return list(self._webhooks)

    def wanting(self, event: Event) -> Sequence[str]:
        return [
            name for name, each in self._webhooks.items() if event.severity.rank >= each.least.rank
        ]

    async def send_now(self, event: Event) -> Sequence[str]:
        return [
            name
            for name in self.wanting(event)
            if await self._is_taken(self._webhooks[name], event)
        ]

    async def send_due(self) -> None:
        if not self._webhooks:
            return
        due = await asyncio.to_thread(self._store.due_deliveries, self._clock.wall_us(), _AT_ONCE)
        await asyncio.gather(*(self._send(each) for each in due))

    async def _send(self, due: Due) -> None:
        webhook = self._webhooks.get(due.webhook)
        if webhook is None:
            await asyncio.to_thread(self._store.delivered, due.event.id, due.webhook)
            return
        if await self._is_taken(webhook, due.event):
            await asyncio.to_thread(self._store.delivered, due.event.id, due.webhook)
        elif due.attempts + 1 >= _GIVES_UP_AFTER:
            _logger.error("webhook_gave_up", extra={"reason": due.event.id})
            await asyncio.to_thread(self._store.delivered, due.event.id, due.webhook)
        else:
            pause_s = min(_FIRST_S * 2**due.attempts, _MOST_S) * random.uniform(0.8, 1.2)  # noqa: S311
            at_us = self._clock.wall_us() + int(pause_s * 1e6)
            await asyncio.to_thread(self._store.deliver_later, due.event.id, due.webhook, at_us)

    async def _is_taken(self, webhook: Webhook, event: Event) -> bool:
        import aiohttp  # 6 MB, and only who has webhooks needs it

        body = orjson.dumps(shown_event(event))
        at_s = self._clock.wall_us() // 1_000_000
        headers = {
            "content-type": "application/json",
            "x-freehold-event": event.id,
            "x-freehold-timestamp": str(at_s),
            "x-freehold-signature": signature(webhook.secret, at_s, body),
        }
        tls = webhook.tls if webhook.tls is not None else True
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, trust_env=False) as session,
                session.post(
                    webhook.url, data=body, headers=headers, ssl=tls, allow_redirects=False
                ) as answer,
            ):
                return 200 <= answer.status < 300
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            _logger.warning("webhook_failed", extra={"reason": type(error).__name__})
            return False


def signature(secret: Secret, at_s: int, body: bytes) -> str:
    """`v1=` and the hex of HMAC-SHA256(secret, "<timestamp>.<body>")."""
    signed = b"%d.%b" % (at_s, body)
    return "v1=" + hmac.digest(secret.reveal().encode(), signed, "sha256").hex()


def shown_event(event: Event) -> dict[str, Any]:
    what = event.what
    return {
        "id": event.id,
        "at": rfc3339(event.at_us),
        "severity": event.severity.value,
        "kind": what.kind.value,
        "tenant": what.tenant_id,
        "environment": what.environment,
        "subject": what.subject,
        "text": what.text,
        "details": dict(what.details),
    }
