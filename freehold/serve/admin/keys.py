"""`/admin/v1/keys`: the keys of a tenant's environment."""

import asyncio
import time
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from freehold.config.schema import CertificateName, Name
from freehold.core.binding import Environment, Principal
from freehold.core.binding import Scope as Right
from freehold.core.clock import Clock, rfc3339
from freehold.core.departure import OnDeparture
from freehold.core.errors import Code, UserError
from freehold.core.event import Happening, Kind
from freehold.core.names import label
from freehold.core.secret import Secret
from freehold.secure import certificates
from freehold.secure.certificates import MAX_NAMES
from freehold.secure.grants import attenuated
from freehold.secure.keys import KeyRequest
from freehold.secure.network import network
from freehold.secure.rotation import LONGEST_GRACE_S, Rotation, no_key, rotate
from freehold.serve.gateway import Gateway
from freehold.serve.owner import Owner, OwnQuery, owner
from freehold.serve.reading import body_of, parsed, query
from freehold.serve.routes import Reference
from freehold.serve.wire import Receive, Scope, Send, reply_json
from freehold.store.base import KeyRecord

_MAX_DAYS = 3660
_DAY_S = 86_400


class NewKey(BaseModel):
    """A key to be made; what is left out is as the maker's own key has it. `networks` are
    those that it may be used from, in CIDR; `certificates` the names of client certificates, one
    of which must come with it. `sha256` (64 hex digits) takes over a key of
    another gateway that kept this hash of it; then no key is shown, its owner has it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]
    tenant: Reference | None = None
    environment: Environment | None = None
    scopes: Annotated[tuple[Right, ...], Field(min_length=1, max_length=8)] = (Right.INFER,)
    models: Annotated[tuple[Name, ...], Field(max_length=1000)] | None = None
    networks: (
        Annotated[
            tuple[Annotated[str, Field(min_length=2, max_length=60)], ...],
            Field(min_length=1, max_length=64),
        ]
        | None
    ) = None
    certificates: (
        Annotated[tuple[CertificateName, ...], Field(min_length=1, max_length=MAX_NAMES)] | None
    ) = None
    expires_in_days: Annotated[int, Field(ge=1, le=_MAX_DAYS, strict=True)] | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")] | None = None

    @field_validator("networks")
    @classmethod
    def _in_one_way(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is None:
            return None
        try:
            return tuple(str(network(each)) for each in value)
        except UserError as error:
            raise ValueError(error.message.removesuffix(".")) from None

    @field_validator("name")
    @classmethod
    def _plain(cls, value: str) -> str:
        return label(value)

    @field_validator("certificates")
    @classmethod
    def _named(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        try:
            return None if value is None else tuple(map(certificates.name, value))
        except UserError as error:
            raise ValueError(error.message.removesuffix(".")) from None


class KeyChange(BaseModel):
    """What follows when the key is used otherwise than before, from the next time on;
    `default` leaves it to its tenant and to the settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    on_departure: OnDeparture
    tenant: Reference | None = None
    environment: Environment | None = None


class KeyRotation(BaseModel):
    """For how long the old key goes on, and perhaps a token of the caller's: the same call
    gets the same new key, whose secret only the first one is told."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    grace_s: Annotated[int, Field(ge=0, le=LONGEST_GRACE_S, strict=True)] = _DAY_S
    token: Annotated[str, Field(pattern=r"^[!-~]{1,128}$")] | None = None
    tenant: Reference | None = None
    environment: Environment | None = None

    def of(self, owner: Owner, key_id: str) -> Rotation:
        return Rotation(*owner, key_id, self.grace_s, self.token or "")


class KeysAdmin:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def listing(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        tenant_id, environment = self._owner(scope, principal, query(OwnQuery, scope))
        records = await asyncio.to_thread(
            self._gateway.store.keys, tenant_id, environment=environment
        )
        await reply_json(send, {"data": [shown_key(record) for record in records]})

    async def create(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        raw = await body_of(self._gateway, scope, receive, principal, key)
        wanted = parsed(NewKey, raw)
        request = key_request(wanted, self._owner(scope, principal, wanted), self._gateway.clock)
        request = attenuated(principal, request)
        record, minted = await asyncio.to_thread(self._gateway.keyring.mint, request)
        await reply_json(send, shown_key(record, minted), status=201)

    async def revoke(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        tenant_id, environment = self._owner(scope, principal, query(OwnQuery, scope))
        key_id = scope["path_params"]["key_id"]
        record = await asyncio.to_thread(
            self._gateway.keyring.revoke, tenant_id, key_id, environment=environment
        )
        if record is None:
            raise no_key()
        await self._gateway.access.refresh()
        await reply_json(send, shown_key(record))

    async def confirm(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        gateway, key_id = self._gateway, scope["path_params"]["key_id"]
        tenant_id, environment = self._owner(scope, principal, query(OwnQuery, scope))
        _check_another(principal, key_id)
        record = await asyncio.to_thread(gateway.store.key, tenant_id, environment, key_id)
        if record is not None:
            record = await gateway.patterns.confirm(tenant_id, environment, key_id)
        if record is None:
            raise no_key()
        await gateway.access.refresh()
        gateway.events.tell(
            Happening(
                Kind.KEY_CONFIRMED,
                "The use of a key was found in order.",
                key_id,
                tenant_id,
                environment.value,
            )
        )
        await reply_json(send, shown_key(record))

    async def change(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        raw = await body_of(self._gateway, scope, receive, principal, key)
        wanted, key_id = parsed(KeyChange, raw), scope["path_params"]["key_id"]
        owner = self._owner(scope, principal, wanted)
        _check_another(principal, key_id)
        record = await asyncio.to_thread(
            self._gateway.store.choose_for_key, *owner, key_id, wanted.on_departure
        )
        if record is None:
            raise no_key()
        await reply_json(send, shown_key(record))

    async def rotate(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        raw = await body_of(self._gateway, scope, receive, principal, key)
        wanted = parsed(KeyRotation, raw)
        asked = wanted.of(self._owner(scope, principal, wanted), scope["path_params"]["key_id"])
        record, minted = await asyncio.to_thread(rotate, self._gateway.keyring, asked, principal)
        await reply_json(send, shown_key(record, minted))

    def _owner(
        self, scope: Scope, principal: Principal, asked: NewKey | KeyChange | KeyRotation | OwnQuery
    ) -> Owner:
        return owner(self._gateway, scope, principal, asked.tenant, asked.environment)


def _check_another(principal: Principal, key_id: str) -> None:
    """Who stole a key would else answer for it."""
    if principal.id == key_id:
        raise UserError(
            Code.FORBIDDEN,
            "A key cannot answer for its own use: have another administrator do it, or do it "
            "where the gateway's home is.",
        )


def key_request(wanted: NewKey, owner: Owner, clock: Clock) -> KeyRequest:
    expires_at_us = None
    if wanted.expires_in_days is not None:
        expires_at_us = clock.wall_us() + wanted.expires_in_days * _DAY_S * 1_000_000
    return KeyRequest(
        tenant_id=owner[0],
        environment=owner[1],
        name=wanted.name,
        scopes=frozenset(wanted.scopes),
        models=None if wanted.models is None else frozenset(wanted.models),
        expires_at_us=expires_at_us,
        sha256=bytes.fromhex(wanted.sha256) if wanted.sha256 else None,
        networks=None if wanted.networks is None else frozenset(wanted.networks),
        certificates=None if wanted.certificates is None else frozenset(wanted.certificates),
    )


def shown_key(record: KeyRecord, secret: Secret | None = None) -> dict[str, Any]:
    now_us = time.time_ns() // 1000
    state = "active"
    if record.revoked_at_us is not None:
        state = "revoked"
    elif record.expires_at_us is not None and record.expires_at_us <= now_us:
        state = "expired"
    elif record.restraint is not None:
        state = record.restraint.value
    shown = {
        "id": record.id,
        "name": record.name,
        "environment": record.environment.value,
        "scopes": sorted(record.scopes),
        "models": None if record.models is None else sorted(record.models),
        "networks": None if record.networks is None else sorted(record.networks),
        "certificates": None if record.certificates is None else sorted(record.certificates),
        "state": state,
        "on_departure": record.on_departure.value,
        "restrained_at": rfc3339(record.restrained_at_us),
        "created_at": rfc3339(record.created_at_us),
        "expires_at": rfc3339(record.expires_at_us),
        "revoked_at": rfc3339(record.revoked_at_us),
        "replaced_by": record.replaced_by,
    }
    return shown if secret is None else {**shown, "key": secret.reveal()}
