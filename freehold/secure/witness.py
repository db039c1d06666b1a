"""Who hears of audit records before the database has them: the signed checkpoints, and the
copies that the settings name."""

from collections.abc import Mapping, Sequence

import orjson

from freehold.core.acts import Act
from freehold.core.audit import Head, Record
from freehold.core.clock import Clock
from freehold.secure.checkpoints import Checkpoints
from freehold.secure.copies import Copies
from freehold.secure.forgotten import Forgetting, Forgotten


class Witness:
    """For one thread at a time."""

    def __init__(
        self,
        checkpoints: Checkpoints,
        clock: Clock,
        heads: Mapping[str, Head],
        forgotten: Forgotten,
        copies: Sequence[Copies] = (),
    ) -> None:
        """`heads` are those of the database. Raises `OSError`."""
        self._checkpoints = checkpoints
        self._clock = clock
        self._forgotten = forgotten
        self._copies = copies
        checkpoints.begin(heads, clock.wall_us())
        for each in copies:
            each.begin(checkpoints.ends)

    def __call__(self, records: Sequence[Record]) -> None:
        """All of them or none, everywhere: what is signed last counts. Raises `OSError`."""
        fresh = self._checkpoints.fresh(records)
        if not fresh:
            return
        at_us = self._clock.wall_us()
        written: list[Copies] = []
        failing = "a copy of the records"
        try:
            for each in self._copies:
                each.add(fresh, at_us)
                written.append(each)
            failing = "the checkpoints"
            for record in fresh:
                self._forget(record)
            self._checkpoints.add(fresh, at_us)
        except OSError as error:
            for each in written:
                each.take_back()
            raise OSError(error.errno, error.strerror, failing) from None

    @property
    def forgotten(self) -> Sequence[Forgetting]:
        return self._forgotten.all

    def _forget(self, record: Record) -> None:
        """Before it is done, so that no older database can undo it. Should it fail after
        that, the next start does what was asked for."""
        if record.is_once:
            body = orjson.loads(record.body)
            if body.get("act") == Act.SUBJECT_FORGET and body["outcome"] == "ok":
                self._forgotten.add(Forgetting(record.stream, body["object"], body["at_us"]))

    def owed(self, heads: Mapping[str, Head]) -> list[Record]:
        return self._checkpoints.owed(heads)

    def check(self, heads: Mapping[str, Head]) -> None:
        self._checkpoints.check(heads)

    def close(self) -> None:
        self._checkpoints.close()
