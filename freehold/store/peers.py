"""The gateways on one database: which are there, and what each must hear of from the others.
A SQLite file has one only, and nothing of this is written."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, or_, select, text, update

from freehold.core.binding import Environment
from freehold.core.errors import Code, UserError
from freehold.store.backend import EVERY_TENANT
from freehold.store.database import Database
from freehold.store.tables import changes, gateways

_ROUTES, _SIGNATURES = "routes", "signatures"
_PUT_CHANGE = text(
    "INSERT INTO changes (name, number) VALUES (:name, :number)"
    " ON CONFLICT (name) DO UPDATE SET number = excluded.number"
)


class Heard(NamedTuple):
    """What other gateways changed: the number of the last change, the tenants' environments whose
    routes are others, and whether other signatures count."""

    number: int
    homes: set[tuple[str, Environment]]
    signatures: bool


class Peers(Database):
    def take_place(self) -> None:
        """Raises `UserError(HOME_IN_USE)` while another process is this gateway."""
        with self._told():
            is_ours = self._place.hold()
        if not is_ours:
            raise UserError(
                Code.HOME_IN_USE,
                f"Another process is the gateway {self.gateway} on this database: stop it, or "
                "remove `gateway`, `audit` and `journal` from this home if that is a copy of "
                "another's.",
            )

    def beat(self) -> None:
        """Tells the others that this gateway is there. Raises as `take_place`."""
        words = self._backend.words.peers
        if words is not None:
            self.take_place()
            with self._beside() as connection:
                connection.execute(words.beat, {"gateway": self.gateway})

    def heard(self, since: int) -> Heard:
        """After the change of that number."""
        kinds = [changes.c.name.startswith(f"{each}/") for each in (_ROUTES, _SIGNATURES)]
        last, homes, signatures = since, set(), False
        with self._reading(EVERY_TENANT) as connection:
            wanted = select(changes.c.name, changes.c.number)
            for name, number in connection.execute(
                wanted.where(or_(*kinds), changes.c.number > since)
            ):
                kind, *home, gateway = name.split("/")
                last = max(last, number)
                if gateway == self.gateway:
                    continue
                if kind == _SIGNATURES:
                    signatures = True
                else:
                    tenant_id, environment = home
                    homes.add((tenant_id, Environment(environment)))
        return Heard(last, homes, signatures)

    def _tell_peers(self, connection: Connection, tenant_id: str, environment: Environment) -> None:
        self._tell(connection, f"{_ROUTES}/{tenant_id}/{environment}")

    def _tell_of_signatures(self, connection: Connection) -> None:
        self._tell(connection, _SIGNATURES)

    def _tell(self, connection: Connection, what: str) -> None:
        """Each gateway's last change has a row of its own, so that none hides another's."""
        if self.gateway is None:
            return
        counted = update(changes).where(changes.c.name == _ROUTES)
        number = connection.scalar(
            counted.values(number=changes.c.number + 1).returning(changes.c.number)
        )
        name = f"{what}/{self.gateway}"
        connection.execute(_PUT_CHANGE, {"name": name, "number": number})

    def _silent(self, connection: Connection, now_us: int, silent_us: int) -> Sequence[str]:
        """The gateways that were not heard of for so long."""
        return list(
            connection.scalars(
                select(gateways.c.id).where(
                    gateways.c.seen_at_us < now_us - silent_us, gateways.c.id != self.gateway
                )
            )
        )
