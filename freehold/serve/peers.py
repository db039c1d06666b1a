"""This gateway among others on one database: it lets them know that it is there, follows what
they change about routes and signatures, and settles what one that fell silent left open."""

import asyncio
import logging
import time

from freehold.core.errors import UserError
from freehold.serve.routes import Routes
from freehold.serve.tasks import ended
from freehold.store.sql import SqlStore

_logger = logging.getLogger(__name__)
_LOOK_S = 0.25
_BEATS, _SWEEPS = 8, 40  # looks between two of them
_SILENT_S = 60.0
# A database that was not heard of for so long may have revoked anything meanwhile.
_BLIND_S = 60.0


class Peers:
    """`routes` follows the changes after `since`."""

    def __init__(self, store: SqlStore, routes: Routes, since: int) -> None:
        self._store = store
        self._routes = routes
        self._since = since
        self._heard_s = time.monotonic()
        self._task: asyncio.Task[None] | None = None

    @property
    def are_heard(self) -> bool:
        """False when the database was away for too long to know what still holds."""
        return self._store.gateway is None or time.monotonic() - self._heard_s < _BLIND_S

    def start(self) -> None:
        if self._store.gateway is not None:
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        await ended(self._task)

    async def _run(self) -> None:
        look = 0
        while True:
            try:
                await self._look(look)
                self._heard_s = time.monotonic()
            except UserError as error:  # the next look may do better
                _logger.warning("peers_not_followed", extra={"reason": error.message})
            except Exception:  # what others change must be heard of after any surprise
                _logger.exception("peers_not_followed")
            look += 1
            await asyncio.sleep(_LOOK_S)

    async def _look(self, look: int) -> None:
        if look % _BEATS == 0:
            await asyncio.to_thread(self._store.beat)
        if look % _SWEEPS == 0:
            count = await asyncio.to_thread(self._store.sweep, int(_SILENT_S * 1e6))
            if count:
                _logger.warning(
                    "silent_gateway_settled",
                    extra={"reason": f"{count} requests of gateways that fell silent"},
                )
        heard = await asyncio.to_thread(self._store.heard, self._since)
        if heard.homes:
            await self._routes.follow(heard.homes)
        if heard.signatures:
            await self._routes.follow_signatures()
        self._since = heard.number
