"""What decisions are held against."""

from collections.abc import Sequence

from freehold.operate.decisions.watched import Usage, Used
from freehold.store import fleet
from freehold.store.sql import SqlStore


def usage_of(store: SqlStore) -> Usage:
    """What decisions are held against."""

    def used(since_us: int, until_us: int, aliases: Sequence[str] | None) -> Used:
        return Used(*fleet.used(store, since_us, until_us, aliases))

    return used
