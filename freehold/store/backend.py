"""What differs between the databases that the store can be on. Everything else is one SQL.

`sqlite.py` and `postgres.py` each open theirs and hold the words that only it understands;
the statements that they go into are written once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final, Protocol

from sqlalchemy import Column, ColumnElement, Connection, Engine, TextClause


class EveryTenant(Enum):
    MARK = auto()


# Said by what must see all tenants' rows; a tenant's id can never say it.
EVERY_TENANT: Final = EveryTenant.MARK
Whose = str | EveryTenant


@dataclass(frozen=True, slots=True)
class Words:
    """What each database says in its own way, for statements that are written once."""

    entries: str  # the elements of the JSON array `:rows`, each as `value`
    cast: Callable[[str, Column[Any]], str]  # text out of JSON, as this column takes it
    day: Callable[[ColumnElement[Any]], ColumnElement[str]]  # of a time in microseconds
    peers: "PeerWords | None"  # None where there is one gateway


@dataclass(frozen=True, slots=True)
class PeerWords:
    """Of several gateways on one database."""

    now_us: TextClause  # by the database's clock
    beat: TextClause  # of `:gateway`
    turn_of: TextClause  # returns when no other transaction has it for `:tenant`
    claim: TextClause  # takes a slot for one request of all gateways; returns its id if it did


class Place(Protocol):
    """That of one gateway on a database."""

    def hold(self) -> bool:
        """Whether it is this process's; taken where it is free."""
        ...

    def close(self) -> None: ...


class Backend(Protocol):
    """One database, not opened yet."""

    @property
    def shown(self) -> str:
        """How people know it, without what opens it."""
        ...

    @property
    def remedy_at_start(self) -> str:
        """What helps when it cannot be opened."""
        ...

    @property
    def remedy(self) -> str:
        """What helps when it cannot be used any more."""
        ...

    @property
    def words(self) -> Words: ...

    @property
    def gateway(self) -> str | None:
        """The id of the one that opens it; None where there can be no others."""
        ...

    def open_writer(self) -> Engine:
        """Raises `UserError`."""
        ...

    def open_reader(self) -> Engine:
        """Its connections cannot write."""
        ...

    def check(self, writer: Engine) -> None:
        """Raises `UserError(CONFIG_INVALID)` for one that must not be used as it is."""
        ...

    def place(self, writer: Engine) -> Place: ...

    def begin_upgrade(self, connection: Connection) -> None:
        """Returns when no other process upgrades it."""
        ...

    def end_upgrade(self, connection: Connection) -> None: ...

    def take_turn(self, connection: Connection) -> None:
        """Until its transaction ends no other process changes what people manage, so that
        what is read before a change still holds when it is made."""
        ...

    def take_time(self, connection: Connection) -> None:
        """Its transaction may be longer than others."""
        ...

    def scrub(self, writer: Engine) -> None:
        """What was overwritten before shall be in no file of it."""
        ...

    def see(self, connection: Connection, whose: Whose) -> None:
        """Until its transaction ends, or the next call, it sees and changes rows of this
        tenant only, where the database can see to that."""
        ...
