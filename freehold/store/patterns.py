"""Patterns of use in the database, as the gateway that learned them wrote them."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, insert, select

from freehold.store.audit import AuditTable
from freehold.store.tables import api_keys, key_patterns


@dataclass(frozen=True, slots=True)
class StoredPattern:
    """`place` is the gateway that learned it; `content` is JSON."""

    key_id: str
    place: str
    tenant_id: str
    content: str
    at_us: int


class PatternTable(AuditTable):
    def pattern(self, tenant_id: str, key_id: str, place: str) -> StoredPattern | None:
        mine = (key_patterns.c.key_id == key_id) & (key_patterns.c.tenant_id == tenant_id)
        with self._reading(tenant_id) as connection:
            row = (
                connection.execute(select(key_patterns).where(mine, key_patterns.c.place == place))
                .mappings()
                .first()
            )
        return StoredPattern(**row) if row else None

    def keep_patterns(self, changed: Sequence[StoredPattern]) -> None:
        """In place of what was there of the same."""
        with self._applying() as connection:
            for each in changed:
                same = (key_patterns.c.key_id == each.key_id) & (key_patterns.c.place == each.place)
                connection.execute(delete(key_patterns).where(same))
                connection.execute(
                    insert(key_patterns).values(
                        key_id=each.key_id,
                        place=each.place,
                        tenant_id=each.tenant_id,
                        content=each.content,
                        at_us=each.at_us,
                    )
                )

    def forget_patterns(self, before_us: int) -> None:
        """Of keys that are not used any more, or are gone."""
        gone = key_patterns.c.key_id.not_in(select(api_keys.c.id))
        with self._applying() as connection:
            connection.execute(
                delete(key_patterns).where((key_patterns.c.at_us < before_us) | gone)
            )
