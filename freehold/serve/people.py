"""People and workloads that an identity provider vouches for, as principals."""

import base64
import hashlib
import ssl
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import jwt

from freehold.config.schema import ProviderSettings
from freehold.core.binding import Environment, Principal, Scope, Vouched
from freehold.core.clock import Clock
from freehold.core.errors import Code, UserError
from freehold.core.role import RoleGrant
from freehold.core.session import Session
from freehold.core.tenant import DEFAULT_TENANT, Tenant
from freehold.secure.keys import not_served, tenant_disabled
from freehold.secure.oidc import Claims, Provider, Trusted, no_provider
from freehold.secure.sessions import invalid_session
from freehold.serve.tenants import Tenants
from freehold.store.base import PeopleStore

_ID_BYTES = 16
_EVERYBODY = ""


@dataclass(frozen=True, slots=True)
class Granted:
    """What somebody has, in one environment."""

    environment: Environment
    scopes: frozenset[Scope]


@dataclass(frozen=True, slots=True)
class _Kept:
    """What the store says of people; replaced whole, never changed."""

    grants: Mapping[tuple[str, str], Sequence[RoleGrant]]  # by tenant and issuer
    cut_offs: Mapping[tuple[str, str], int]


class People:
    """What somebody may is what the settings give their groups, and the store besides, at
    each use."""

    def __init__(
        self,
        providers: Sequence[ProviderSettings],
        tenants: Tenants,
        environments: Sequence[Environment],
        store: PeopleStore,
        clock: Clock,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        """Raises `UserError(CONFIG_INVALID)` for a provider whose tokens would prove
        nothing, and for a tenant that is not there."""
        self._tenants = tenants
        self._environments = environments
        self._store = store
        self._providers: dict[str, tuple[Provider, ProviderSettings]] = {}
        for each in providers:
            trusted = Trusted(
                each.issuer,
                each.audiences,
                each.algorithms,
                each.groups_claim,
                each.tenant_claim,
                each.clients,
            )
            self._providers[each.issuer] = Provider(trusted, clock, trust), each
            self._check_tenants(each)
        self._kept = self._read()

    def reload(self) -> None:
        """May block."""
        self._kept = self._read()

    @property
    def providers(self) -> Sequence[ProviderSettings]:
        return [settings for _, settings in self._providers.values()]

    def called(self, reference: str) -> tuple[Provider, ProviderSettings] | None:
        """A provider by its name or its issuer."""
        for provider, settings in self._providers.values():
            if reference in (settings.called, settings.issuer):
                return provider, settings
        return None

    async def principal(self, token: str, wanted: str | None, epoch: int) -> Principal:
        """`wanted` is the environment that the request names; without one it is the first
        that the groups give. Raises what `Provider.claims` raises, and
        `ENVIRONMENT_NOT_SERVED`, `TENANT_DISABLED`, `FORBIDDEN`."""
        provider, settings = self.by_token(token)
        claims = await provider.claims(token)
        tenant_id, person_id = self.whose(settings, claims)
        granted = self.granted(settings, tenant_id, claims.groups)
        chosen = self._chosen(granted, wanted)
        return Principal(
            id=person_id,
            tenant_id=tenant_id,
            environment=chosen.environment,
            scopes=chosen.scopes,
            models=None,
            groups=claims.groups,
            epoch=epoch,
            known=known(claims.issuer, claims.subject, claims.email),
            vouched=Vouched(claims.issuer, claims.issued_at_us),
        )

    def of_session(self, session: Session, wanted: str | None, epoch: int) -> Principal:
        """The same for somebody who logged in, by the rules of now. Raises also
        `INVALID_SESSION`, when the provider is trusted no more or means another tenant."""
        settings = self._settings_of(session)
        granted = self.granted(settings, session.tenant_id, session.groups)
        chosen = self._chosen(granted, wanted)
        return Principal(
            id=session.person_id,
            tenant_id=session.tenant_id,
            environment=chosen.environment,
            scopes=chosen.scopes,
            models=None,
            groups=session.groups,
            epoch=epoch,
            known=known(session.issuer, session.subject, session.email),
            vouched=Vouched(session.issuer, session.issued_at_us, session.id),
        )

    def rights_of(self, session: Session) -> Sequence[Granted]:
        """In each environment in which there are any. Raises as `of_session` does."""
        settings = self._settings_of(session)
        return self.granted(settings, session.tenant_id, session.groups)

    def granted(
        self, settings: ProviderSettings, tenant_id: str, groups: Collection[str]
    ) -> list[Granted]:
        """What these groups have, by environment: first those of the settings, as they are
        written there."""
        found: dict[Environment, frozenset[Scope]] = {}
        none: frozenset[Scope] = frozenset()
        for rule in settings.access:
            if rule.group not in groups or not self._is_for(rule.tenant, tenant_id):
                continue
            for each in rule.environments:
                found[each] = found.get(each, none) | rule.granted
        for grant in self._kept.grants.get((tenant_id, settings.issuer), ()):
            if grant.group in groups:
                now = found.get(grant.environment, none)
                found[grant.environment] = now | {grant.role.scope}
        return [Granted(environment, scopes) for environment, scopes in found.items()]

    def still(self, principal: Principal) -> Principal | None:
        """Somebody who was let in, with what they may now; None who would not be let in."""
        vouched = principal.vouched
        if vouched is None or principal.groups is None:
            return None
        _, settings = self._providers.get(vouched.issuer, (None, None))
        if settings is None or not self._tenants.is_enabled(principal.tenant_id):
            return None
        if self._is_cut_off(principal.tenant_id, principal.id, vouched.at_us):
            return None
        for granted in self.granted(settings, principal.tenant_id, principal.groups):
            if granted.environment is principal.environment:
                return replace(principal, scopes=granted.scopes)
        return None

    def by_token(self, token: str) -> tuple[Provider, ProviderSettings]:
        """By the issuer that the token names, which is believed once it is checked."""
        try:
            issuer = jwt.decode(token, options={"verify_signature": False}).get("iss")
        except jwt.PyJWTError:
            issuer = None
        found = self._providers.get(issuer) if isinstance(issuer, str) else None
        if found is None:
            raise no_provider()
        return found

    def whose(self, settings: ProviderSettings, claims: Claims) -> tuple[str, str]:
        """The tenant and the id of somebody whose token is believed. Raises `FORBIDDEN`,
        `TENANT_DISABLED`, and `INVALID_TOKEN` for a token from before a cut."""
        tenant = self._tenant_of(settings, claims.tenant)
        if tenant is None and settings.tenant_claim is not None:
            raise UserError(
                Code.FORBIDDEN,
                f"The claim {settings.tenant_claim!r} of your token names no tenant that is "
                "served here: ask your administrator.",
            )
        if tenant is None or not tenant.is_active:
            raise tenant_disabled()
        person_id = _id_of(claims)
        if self._is_cut_off(tenant.id, person_id, claims.issued_at_us):
            raise UserError(
                Code.INVALID_TOKEN,
                "This token is not accepted: those that you were given until now were revoked; "
                "log in again.",
            )
        return tenant.id, person_id

    def _settings_of(self, session: Session) -> ProviderSettings:
        found = self._providers.get(session.issuer)
        if found is None:
            raise invalid_session()
        _, settings = found
        tenant = self._tenant_of(settings, session.tenant_value)
        if tenant is None or tenant.id != session.tenant_id:
            raise invalid_session()
        if not tenant.is_active:
            raise tenant_disabled()
        if self._is_cut_off(tenant.id, session.person_id, session.issued_at_us):
            raise invalid_session()
        return settings

    def _tenant_of(self, settings: ProviderSettings, value: str | None) -> Tenant | None:
        """What the token says of its tenant only ever chooses among those that are listed."""
        if settings.tenant_claim is None:
            return self._tenants.find(settings.tenant or DEFAULT_TENANT)
        name = settings.tenants.get(value or "")
        return None if name is None else self._tenants.find(name)

    def _chosen(self, granted: Sequence[Granted], wanted: str | None) -> Granted:
        for each in granted:
            if wanted in (None, each.environment.value):
                if each.environment not in self._environments:
                    raise not_served(each.environment)
                return each
        raise _not_allowed()

    def _is_for(self, reference: str | None, tenant_id: str) -> bool:
        if reference is None:
            return True
        tenant = self._tenants.find(reference)
        return tenant is not None and tenant.id == tenant_id

    def _is_cut_off(self, tenant_id: str, person_id: str, issued_at_us: int) -> bool:
        cut = self._kept.cut_offs
        before = max(cut.get((tenant_id, who), 0) for who in (person_id, _EVERYBODY))
        return issued_at_us < before

    def _read(self) -> _Kept:
        grants: dict[tuple[str, str], list[RoleGrant]] = {}
        for each in self._store.every_role_grant():
            grants.setdefault((each.tenant_id, each.issuer), []).append(each)
        return _Kept(grants, self._store.every_cut_off())

    def _check_tenants(self, settings: ProviderSettings) -> None:
        named = [settings.tenant or DEFAULT_TENANT] if settings.tenant_claim is None else []
        ruled = [rule.tenant for rule in settings.access if rule.tenant is not None]
        for name in [*named, *settings.tenants.values(), *ruled]:
            if self._tenants.find(name) is None:
                raise UserError(
                    Code.CONFIG_INVALID,
                    f"identity_providers: there is no tenant {name!r} for "
                    f"{settings.issuer}: see `freehold tenant list`.",
                )


def looks_like_token(credential: str) -> bool:
    """A JWT in compact form, which no API key of ours looks like."""
    return credential.startswith("ey") and credential.count(".") == 2


def known(issuer: str, subject: str, email: str | None) -> tuple[tuple[str, str], ...]:
    found = (("issuer", issuer), ("subject", subject), ("email", email or ""))
    return tuple((name, value) for name, value in found if value)


def _id_of(claims: Claims) -> str:
    """The same for the same person always, and not to be read back."""
    whole = f"{claims.issuer}\0{claims.subject}".encode()
    short = hashlib.sha256(whole).digest()[:_ID_BYTES]
    return "per_" + base64.b32encode(short).decode().rstrip("=").lower()


def _not_allowed() -> UserError:
    return UserError(
        Code.FORBIDDEN,
        "None of your groups may use this environment: ask your administrator, or name another "
        "in the header `x-freehold-environment`.",
    )
