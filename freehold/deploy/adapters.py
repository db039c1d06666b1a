"""The adapters of one base: what its replicas should have, and what each was told of.

Replicas get them as desired state and never from a request: before a route that names
one shows, at each start before a replica serves, and again when one has forgotten. A
replica that serves has them all but the refused ones.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from freehold.core.binding import Environment
from freehold.core.engine import AdapterFiles
from freehold.core.errors import Code, UserError
from freehold.deploy import reconcile
from freehold.engines.base import EngineClient

_logger = logging.getLogger(__name__)

_CALL_S = 120.0
Owner = tuple[str, Environment]


@dataclass(frozen=True, slots=True)
class Stored:
    """Adapters that a replica may be told of, and why not of others, by digest; `apart` are
    those that only some of their owners may use, by whom and digest."""

    files: Sequence[AdapterFiles]
    refused: Mapping[str, str] = field(default_factory=dict)
    apart: Mapping[tuple[Owner, str], str] = field(default_factory=dict)


Files = Callable[[Sequence[str]], Stored]


class PoolAdapters:
    """`files` reads where adapters lie, and whether they are whose they should be; it may
    block. `desired` are the digests that routes name at the start."""

    def __init__(self, desired: set[str], files: Files) -> None:
        self.refused: dict[str, str] = {}  # why, by digest
        self._apart: dict[tuple[Owner, str], str] = {}  # the same, for some of their owners
        self._desired = desired
        self._files = files
        # By client, which is a replica from one start to its end.
        self._observed: WeakKeyDictionary[EngineClient, set[str]] = WeakKeyDictionary()
        self._users: Counter[str] = Counter()
        self._leaving: set[str] = set()  # not desired any more, and still with a replica
        self._changing = asyncio.Lock()
        self._serving: Callable[[], Sequence[EngineClient]] = lambda: ()
        self._tasks: set[asyncio.Task[None]] = set()

    def serve(self, serving: Callable[[], Sequence[EngineClient]]) -> None:
        """`serving` gives the clients of the replicas that serve now."""
        self._serving = serving

    def __contains__(self, digest: str) -> bool:
        return digest in self._desired and digest not in self.refused

    def why_not(self, owner: Owner, digest: str) -> str | None:
        """None where its owner's requests can be answered under it."""
        if digest not in self._desired:
            return "no engine has it yet"
        return self.refused.get(digest) or self._apart.get((owner, digest))

    def permit(self, owner: Owner, digest: str) -> None:
        """Its owner's is sound, as was seen just now."""
        self._apart.pop((owner, digest), None)

    @contextmanager
    def used(self, digest: str | None) -> Iterator[None]:
        """As long as a request is under an adapter, no replica is told to drop it."""
        if digest is None:
            yield
            return
        self._users[digest] += 1
        try:
            yield
        finally:
            self._users[digest] -= 1
            if not self._users[digest]:
                del self._users[digest]
                if digest in self._leaving:
                    self._later(self._let_go())

    async def prepare(self, client: EngineClient) -> None:
        """Returns when this replica has all that is desired; nothing may come between
        that and its first request."""
        observed = self._observed.setdefault(client, set())
        while steps := list(reconcile.steps(self._pending(), observed, self._users)):
            for step in steps:  # meanwhile more may be desired
                await self._tell(client, step)

    def forgotten_by(self, client: EngineClient) -> None:
        """This replica does not know what it was told: it must be told again."""
        self._observed.pop(client, None)

    async def want(self, digest: str) -> None:
        """Returns when every replica that serves has it. Raises `UserError`, and then
        nothing has changed: `FILE_REFUSED` with the engine's reason."""
        async with self._changing:
            if digest in self:
                self._leaving.discard(digest)
                return
            was_desired = digest in self._desired
            self._desired.add(digest)
            self._leaving.discard(digest)
            before = self.refused.pop(digest, None)
            try:
                await self._tell_all(reconcile.Step(add=(digest,)))
                reason = self.refused.get(digest)
                if reason is not None:
                    raise UserError(
                        Code.FILE_REFUSED,
                        f"The engine refuses this adapter: {reason}. Nothing was changed.",
                        param="adapter",
                    )
            except BaseException:
                if not was_desired:
                    self._desired.discard(digest)
                    self.refused.pop(digest, None)
                    self._leaving.add(digest)
                elif before is not None:
                    self.refused[digest] = before
                raise

    async def align(self, desired: Collection[str]) -> None:
        """Has what is missing told to the replicas that serve; others are told when they
        start. One that an engine refuses is kept apart, as at a start."""
        async with self._changing:
            missing = set(desired) - self._desired
            self._desired |= missing
            self._leaving -= missing
            try:
                for step in reconcile.steps(missing, ()) if self._serving() else ():
                    await self._tell_all(step)
            except UserError as error:  # the replica says that it lacks one, and is told again
                _logger.error("adapters_not_told", extra={"reason": error.message})

    async def recheck(self) -> None:
        """By which signatures count now: what may not be used any more is refused at once, and
        goes when its last request has ended; what may again is told to the replicas."""
        async with self._changing:
            for step in reconcile.steps(self._desired, ()):
                stored = await asyncio.to_thread(self._files, step.add)
                self._set_apart(step.add, stored.apart)
                for digest, reason in stored.refused.items():
                    if digest in self:
                        self.refused[digest] = reason
                        self._leaving.add(digest)
                        _logger.error("adapter_refused", extra={"reason": f"{digest}: {reason}"})
                sound = {each.digest for each in stored.files}
                again = tuple(each for each in step.add if each in self.refused and each in sound)
                await self._tell_again(again)
        self._later(self._let_go())

    async def _tell_again(self, refused: Sequence[str]) -> None:
        """One that an engine refuses stays so."""
        clients = self._serving()
        self._leaving.difference_update(refused)
        try:
            if refused and clients:
                await self._tell_all(reconcile.Step(add=tuple(refused)))
        except UserError as error:
            _logger.error("adapters_not_told", extra={"reason": error.message})
            return
        for digest in refused:
            if all(digest in self._observed.get(each, ()) for each in clients):
                self.refused.pop(digest, None)

    def forget_others(self, desired: Collection[str]) -> None:
        """Lets go of what is not among them."""
        for digest in self._desired - set(desired):
            self.unwant(digest)

    def unwant(self, digest: str) -> None:
        """No route names it any more: it goes when its last request has ended."""
        self._desired.discard(digest)
        self.refused.pop(digest, None)
        self._leaving.add(digest)
        self._later(self._let_go())

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _pending(self) -> set[str]:
        return self._desired - self.refused.keys() if self.refused else self._desired

    async def _let_go(self) -> None:
        async with self._changing:
            gone = tuple(each for each in self._leaving if not self._users[each])
            if not gone:
                return
            self._leaving.difference_update(gone)
            try:
                await self._tell_all(reconcile.Step(drop=gone))
            except UserError as error:  # it costs memory, and the next change tries again
                _logger.warning("adapters_not_dropped", extra={"reason": error.message})
                self._leaving.update(each for each in gone if each not in self)

    async def _tell_all(self, step: reconcile.Step) -> None:
        clients = self._serving()
        if step.add and not clients:
            raise UserError(
                Code.ENGINE_UNAVAILABLE,
                "No engine serves the base now: try again.",
                retry_after_s=5,
            )
        for client in clients:
            await self._tell(client, step)

    async def _tell(self, client: EngineClient, step: reconcile.Step) -> None:
        stored = await asyncio.to_thread(self._files, step.add) if step.add else Stored(())
        lost = set(step.add) - {each.digest for each in stored.files}
        refused = dict.fromkeys(lost, "it is not stored any more")
        refused |= stored.refused
        self._set_apart(step.add, stored.apart)
        try:
            async with asyncio.timeout(_CALL_S):
                refused |= await client.change_adapters(stored.files, step.drop)
        except TimeoutError:
            raise UserError(
                Code.ENGINE_TIMEOUT, f"The engine took no adapters within {_CALL_S:.0f} seconds."
            ) from None
        observed = self._observed.setdefault(client, set())
        for digest, reason in refused.items():
            if digest in step.add:
                self.refused[digest] = reason
                _logger.error("adapter_refused", extra={"reason": f"{digest}: {reason}"})
        observed.update(each for each in step.add if each not in refused)
        observed.difference_update(step.drop)

    def _set_apart(self, seen: Collection[str], apart: Mapping[tuple[Owner, str], str]) -> None:
        among = set(seen)
        for owner, digest in [each for each in self._apart if each[1] in among]:
            del self._apart[owner, digest]
        self._apart.update(apart)
        for (owner, digest), reason in apart.items():
            _logger.error(
                "adapter_kept_out", extra={"reason": f"{digest} of {'/'.join(owner)}: {reason}"}
            )

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
