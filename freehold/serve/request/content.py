"""What is asked and answered, for tenants that have it kept with their audit records."""

import asyncio
import hashlib

import orjson

from freehold.core.binding import Binding
from freehold.core.usage import KeptContent
from freehold.secure.subjects import DataKey, seal_content
from freehold.serve.gateway import Gateway
from freehold.serve.protocol.bodies import Body
from freehold.serve.request.personal import owners_of
from freehold.serve.wire import Scope

MOST_BYTES = 64 * 1024  # of what was asked, and as much of the answer


class Content:
    """Collects the answer while it is sent, as it is sent. What is longer is cut."""

    def __init__(self, keys: "list[DataKey]", binding: Binding, asked: bytes) -> None:
        self._keys = keys
        self._binding = binding
        self._asked = asked[:MOST_BYTES]
        self._answered = bytearray()
        self._is_cut = len(asked) > MOST_BYTES

    def keep(self, part: bytes) -> None:
        room = MOST_BYTES - len(self._answered)
        self._is_cut |= len(part) > room
        self._answered += part[:room]

    def kept(self) -> KeptContent:
        content = {
            "asked": self._asked.decode(errors="replace"),
            "answered": self._answered.decode(errors="replace"),
            "cut": self._is_cut,
        }
        request_id, principal = self._binding.request_id, self._binding.principal
        sealed = seal_content(self._keys, orjson.dumps(content), request_id)
        return KeptContent(
            principal.tenant_id,
            principal.environment.value,
            tuple(name for name, _ in self._keys),
            sealed,
            f"sha256:{hashlib.sha256(sealed).hexdigest()}",
        )


async def begun(
    gateway: Gateway, scope: Scope, binding: Binding, body: Body, raw: bytes
) -> Content | None:
    """None for a tenant that has nothing kept, which is all of them until they say so."""
    tenant = gateway.tenants.find(binding.principal.tenant_id)
    if tenant is None or not tenant.audit_content:
        return None
    owners = owners_of(gateway.keyring, scope, binding, body)
    keys = await asyncio.to_thread(gateway.subjects.keys, owners)
    return Content(list(keys), binding, raw)
