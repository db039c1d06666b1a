"""A policy as a person wrote it."""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Policy:
    """`text` is Cedar. One of a tenant's own is only ever asked about that tenant's things
    and its own principals; without a tenant it holds for all."""

    name: str
    text: str
    tenant_id: str | None = None
    set_at_us: int = 0
    set_by: str = ""

    @property
    def digest(self) -> str:
        return f"sha256:{hashlib.sha256(self.text.encode()).hexdigest()}"
