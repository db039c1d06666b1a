"""Follows how keys are used: what a request used is put into a list, and looked at later, off
the way of requests. A departure from a key's own pattern becomes an event, and what was chosen
for the key follows."""

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass

import orjson

from freehold.core.acts import Acting, Via, acting_as
from freehold.core.binding import Binding, Environment
from freehold.core.clock import Clock
from freehold.core.departure import OnDeparture, Restraint, restraint_for
from freehold.core.errors import UserError
from freehold.core.event import Happening, Kind
from freehold.core.usage import Settlement
from freehold.secure.keys import Keyring
from freehold.secure.network import prefix
from freehold.secure.pattern import Departure, Pattern, as_stored, from_stored
from freehold.serve.events.events import Events
from freehold.serve.tasks import ended
from freehold.store.base import KeyRecord
from freehold.store.patterns import StoredPattern
from freehold.store.sql import SqlStore

_logger = logging.getLogger(__name__)
_LOOK_S, _KEEP_EVERY, _FORGET_EVERY = 5.0, 12, 17_280  # looks
_WAITING, _REMEMBERED = 100_000, 10_000
_FORGET_US = 90 * 86_400 * 1_000_000
_NEW_S = 7 * 86_400  # for so long a model is nobody's custom yet
_RESTRAINED = {
    Restraint.STEPPED_DOWN: (
        Kind.KEY_STEPPED_DOWN,
        "A key may only use models, at batch priority, until its use is confirmed.",
    ),
    Restraint.SUSPENDED: (Kind.KEY_SUSPENDED, "A key is refused until its use is confirmed."),
}


@dataclass(frozen=True, slots=True)
class _Use:
    key_id: str
    tenant_id: str
    environment: str
    address: str
    model: str
    is_new_model: bool
    at_s: int
    tokens: int


class Patterns:
    def __init__(
        self,
        store: SqlStore,
        keyring: Keyring,
        events: Events,
        clock: Clock,
        place: str,
        is_on: bool = True,
        on_departure: OnDeparture = OnDeparture.NOTIFY,
    ) -> None:
        """`place` names this gateway: each learns from what it serves itself. `on_departure`
        is for keys for which neither they nor their tenant chose."""
        self._store = store
        self._keyring = keyring
        self._events = events
        self._clock = clock
        self._place = place
        self._is_on = is_on
        self._on_departure = on_departure
        self._new: deque[_Use] = deque(maxlen=_WAITING)
        self._known: OrderedDict[str, tuple[str, Pattern]] = OrderedDict()  # with the tenant
        self._changed: set[str] = set()
        self._departed: dict[str, _Use] = {}  # what follows is still to be done
        self._looking = asyncio.Lock()  # so that nothing is done to a key that is confirmed
        self._task: asyncio.Task[None] | None = None

    def saw(self, binding: Binding, settlement: Settlement) -> None:
        """People's tokens have no pattern: their provider knows them."""
        principal = binding.principal
        if self._is_on and principal.groups is None and not principal.is_local:
            at_s = settlement.settled_at_us // 1_000_000
            self._new.append(
                _Use(
                    principal.id,
                    principal.tenant_id,
                    principal.environment.value,
                    binding.address or "",
                    binding.route.alias,
                    at_s - binding.route.since_us // 1_000_000 < _NEW_S,
                    at_s,
                    settlement.tokens_in + settlement.tokens_out,
                )
            )

    def start(self) -> None:
        if self._is_on:
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is None:
            return
        await ended(self._task)
        try:
            await self.look()
            await self._keep()
        except UserError as error:
            _logger.warning("patterns_not_kept", extra={"reason": error.message})

    async def look(self) -> None:
        """At all that was used since the last time. Raises `UserError` while the store cannot
        be asked; what is to follow departures is done at a later look."""
        async with self._looking:
            await self._look()

    async def _look(self) -> None:
        uses = [self._new.popleft() for _ in range(len(self._new))]
        for key_id, mine in _by_key(uses).items():
            pattern = await self._pattern(mine[0].tenant_id, key_id)
            for (network, model, is_new), (at_s, requests, tokens) in self._folded(mine).items():
                found = pattern.observe(at_s, network, model, requests, tokens, is_new)
                if found is not None:
                    self._tell(mine[0], found)
                    self._departed[key_id] = mine[0]
            self._changed.add(key_id)
        for use in list(self._departed.values()):
            await self._follow(use)

    async def confirm(
        self, tenant_id: str, environment: Environment, key_id: str
    ) -> KeyRecord | None:
        """What is unusual now is usual from here on, and the key may again what it might.
        Returns it, or None when there is none."""
        async with self._looking:
            await self._look()
            pattern = await self._pattern(tenant_id, key_id)
            confirmed = self._store.confirmed
            record = await asyncio.to_thread(confirmed, tenant_id, environment, key_id)
            if record is None:
                return None
            pattern.confirm()
            self._changed.add(key_id)
            for kind in (Kind.KEY_DEPARTED, Kind.KEY_STEPPED_DOWN, Kind.KEY_SUSPENDED):
                self._events.over(kind, key_id)
            await self._keep()
        return record

    async def _run(self) -> None:
        look = 0
        while True:
            await asyncio.sleep(_LOOK_S)
            look += 1
            try:
                await self.look()
                if look % _KEEP_EVERY == 0:
                    await self._keep()
                if look % _FORGET_EVERY == 0:
                    before_us = self._clock.wall_us() - _FORGET_US
                    await asyncio.to_thread(self._store.forget_patterns, before_us)
            except UserError as error:  # the next look may do better
                _logger.warning("patterns_not_kept", extra={"reason": error.message})

    async def _follow(self, use: _Use) -> None:
        restraint = await asyncio.to_thread(self._restrain, use)
        self._departed.pop(use.key_id, None)
        if restraint is not None:
            self._keyring.changed()  # at once here, and in a moment everywhere
            kind, text = _RESTRAINED[restraint]
            self._events.tell(Happening(kind, text, use.key_id, use.tenant_id, use.environment))

    def _restrain(self, use: _Use) -> Restraint | None:
        """What was chosen for this key, and is done by this; may block."""
        environment = Environment(use.environment)
        key = self._store.key(use.tenant_id, environment, use.key_id)
        tenant = self._store.tenant(use.tenant_id)
        if key is None or tenant is None:
            return None
        restraint = restraint_for(key.on_departure, tenant.on_departure, self._on_departure)
        if restraint is None:
            return None
        at_us = self._clock.wall_us()
        # Also where somebody waits for this look: it is not they who do it.
        with acting_as(Acting("freehold", Via.GATEWAY)):
            is_done = self._store.restrain(use.tenant_id, environment, use.key_id, restraint, at_us)
        return restraint if is_done else None

    def _folded(self, uses: Iterable[_Use]) -> dict[tuple[str, str, bool], tuple[int, int, int]]:
        found: dict[tuple[str, str, bool], tuple[int, int, int]] = {}
        for use in uses:
            # Who reads the database learns no address from it.
            network = self._keyring.keyed("network", prefix(use.address))[:16]
            what = network, use.model, use.is_new_model
            _, requests, tokens = found.get(what, (0, 0, 0))
            found[what] = use.at_s, requests + 1, tokens + use.tokens
        return found

    async def _pattern(self, tenant_id: str, key_id: str) -> Pattern:
        known = self._known.get(key_id)
        if known is None:
            stored = await asyncio.to_thread(self._store.pattern, tenant_id, key_id, self._place)
            known = self._known[key_id] = tenant_id, _read(stored)
        self._known.move_to_end(key_id)
        if len(self._known) > _REMEMBERED:
            await self._keep()
            self._known.popitem(last=False)
        return known[1]

    async def _keep(self) -> None:
        at_us = self._clock.wall_us()
        changed = [
            StoredPattern(
                key_id,
                self._place,
                self._known[key_id][0],
                orjson.dumps(
                    as_stored(self._known[key_id][1]), option=orjson.OPT_NON_STR_KEYS
                ).decode(),
                at_us,
            )
            for key_id in self._changed
            if key_id in self._known
        ]
        if changed:
            await asyncio.to_thread(self._store.keep_patterns, changed)
        self._changed.clear()

    def _tell(self, use: _Use, found: Departure) -> None:
        said = ", ".join(found.why) or "several things a little"
        text = f"A key is used otherwise than before ({said}): confirm it, or revoke it."
        details = {"score": round(found.score, 1), **found.why}
        self._events.tell(
            Happening(Kind.KEY_DEPARTED, text, use.key_id, use.tenant_id, use.environment, details)
        )


def _by_key(uses: Iterable[_Use]) -> dict[str, list[_Use]]:
    found: dict[str, list[_Use]] = {}
    for use in uses:
        found.setdefault(use.key_id, []).append(use)
    return found


def _read(stored: StoredPattern | None) -> Pattern:
    """What another version wrote otherwise is learned anew."""
    if stored is None:
        return Pattern()
    try:
        return from_stored(orjson.loads(stored.content))
    except (ValueError, TypeError):
        return Pattern()
