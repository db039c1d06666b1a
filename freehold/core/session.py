"""A person who logged in, as this installation remembers it."""

from dataclasses import dataclass
from enum import StrEnum


class SessionKind(StrEnum):
    """How it is shown: by a browser's cookie or a command's header, and by neither as the
    other."""

    BROWSER = "browser"
    COMMAND = "command"


@dataclass(frozen=True, slots=True)
class Session:
    """What the provider's token said when it was exchanged for this; what that allows is
    found out at each use. `tenant_value` is what the token said of the tenant, if the
    provider serves several."""

    id: str
    tenant_id: str
    person_id: str
    kind: SessionKind
    issuer: str
    subject: str
    groups: frozenset[str]
    tenant_value: str | None
    name: str | None
    issued_at_us: int
    token_expires_at_us: int
    created_at_us: int
    last_used_at_us: int
    expires_at_us: int
    ended_at_us: int | None = None
    ended_by: str | None = None

    @property
    def email(self) -> str | None:
        return self.name if self.name is not None and "@" in self.name else None
