"""One request's Idempotency-Key: its slot, and the answer kept for a retry."""

import hmac

from freehold.core.usage import IdempotencyClaim, StoredReply
from freehold.secure.seal import seal, unseal

_KEEP_US = 24 * 3600 * 1_000_000
_MAX_KEPT_BYTES = 4 * 1024 * 1024


class Claim:
    """Collects the answer while it is sent. An answer that grows past 4 MiB is not
    kept, and a retry of it runs again."""

    def __init__(self, slot: str, api_key: str, idempotency_key: str, raw_body: bytes) -> None:
        self.slot = slot
        self._api_key = api_key
        self._idempotency_key = idempotency_key
        # Under the caller's key: who has the database cannot try out what was asked.
        self._body_hash = hmac.digest(api_key.encode(), raw_body, "sha256").hex()
        self._kept: list[bytes] | None = []
        self._size = 0

    def as_reserved(self, now_us: int) -> IdempotencyClaim:
        return IdempotencyClaim(self.slot, self._body_hash, now_us + _KEEP_US)

    def keep(self, content: bytes) -> None:
        if self._kept is None:
            return
        self._size += len(content)
        if self._size > _MAX_KEPT_BYTES:
            self._kept = None
            return
        self._kept.append(content)

    def reply(self, request_id: str, status: int, content_type: str) -> StoredReply | None:
        if self._kept is None:
            return None
        sealed = seal(self._api_key, self._idempotency_key, b"".join(self._kept))
        return StoredReply(request_id, status, content_type, sealed)

    def open(self, reply: StoredReply) -> bytes:
        return unseal(self._api_key, self._idempotency_key, reply.sealed_body)
