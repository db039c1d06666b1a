"""What a request tells of persons, sealed for its audit record before anything is written."""

import asyncio

import orjson

from freehold.core.binding import Binding
from freehold.core.errors import Code, UserError
from freehold.core.subject import Owner
from freehold.secure.keys import Keyring
from freehold.serve.gateway import Gateway
from freehold.serve.protocol.bodies import Body
from freehold.serve.wire import Scope, header

_HEADER = b"x-freehold-user"
_MOST_CHARACTERS = 256


async def sealed(gateway: Gateway, scope: Scope, binding: Binding, body: Body) -> str | None:
    """Where the request is from, who asks, and for whom, if it says so. Raises `UserError`:
    `INVALID_VALUE` for what is no label, `STORAGE_UNAVAILABLE` for somebody who was not met
    before while the database is away."""
    principal = binding.principal
    fields = dict(principal.known)
    if binding.address:
        fields["address"] = binding.address
    label = named_user(scope, body.data.get("user"))
    if label:
        fields["user"] = label
    if not fields:
        return None
    owners, subjects = _owners(gateway.keyring, binding, label), gateway.subjects
    if subjects.knows(owners):
        found = subjects.seal(owners, fields, binding.request_id)
    else:
        found = await asyncio.to_thread(subjects.seal, owners, fields, binding.request_id)
    return orjson.dumps({"keys": found.keys, "sealed": found.text}).decode()


def owners_of(keyring: Keyring, scope: Scope, binding: Binding, body: Body) -> list[Owner]:
    """Whom a request is about: who asks, and for whom."""
    return _owners(keyring, binding, named_user(scope, body.data.get("user")))


def named_user(scope: Scope, said: str | None) -> str | None:
    """For whom a request says that it is, in its header or else in its body."""
    return _label(scope) or said


def _owners(keyring: Keyring, binding: Binding, label: str | None) -> list[Owner]:
    principal = binding.principal
    owners = [(principal.tenant_id, principal.id)]
    if label:
        owners.append((principal.tenant_id, user_id(keyring, principal.tenant_id, label)))
    return owners


def user_id(keyring: Keyring, tenant_id: str, label: str) -> str:
    """Of an end user as requests name them: nobody reads the name out of it."""
    return f"usr_{keyring.keyed('user', tenant_id, label)[:32]}"


def _label(scope: Scope) -> str | None:
    text = header(scope, _HEADER)
    if text is not None and not (0 < len(text) <= _MOST_CHARACTERS and text.isprintable()):
        raise UserError(
            Code.INVALID_VALUE,
            f"{_HEADER.decode()} must be 1 to {_MOST_CHARACTERS} printable characters.",
            param=_HEADER.decode(),
        )
    return text
