"""People and workloads that an identity provider vouches for, as principals."""

import base64
import hashlib
import ssl
from collections.abc import Sequence

import jwt

from freehold.config.schema import AccessRule, ProviderSettings
from freehold.core.binding import Environment, Principal
from freehold.core.clock import Clock
from freehold.core.errors import Code, UserError
from freehold.secure.keys import not_served, tenant_disabled
from freehold.secure.oidc import Claims, Provider, Trusted, no_provider
from freehold.serve.tenants import Tenants

_ID_BYTES = 16


class People:
    """Which groups of which provider may do what is said by the settings alone."""

    def __init__(
        self,
        providers: Sequence[ProviderSettings],
        tenants: Tenants,
        environments: Sequence[Environment],
        clock: Clock,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        """Raises `UserError(CONFIG_INVALID)` for a provider whose tokens would prove
        nothing, and for a tenant that is not there."""
        self._tenants = tenants
        self._environments = environments
        self._providers: dict[str, tuple[Provider, ProviderSettings]] = {}
        for each in providers:
            trusted = Trusted(each.issuer, each.audiences, each.algorithms, each.groups_claim)
            self._providers[each.issuer] = Provider(trusted, clock, trust), each
            self._tenant_of(each)

    async def principal(self, token: str, wanted: str | None, epoch: int) -> Principal:
        """`wanted` is the environment that the request names; without one it is the first
        that the groups give. Raises what `Provider.claims` raises, and
        `ENVIRONMENT_NOT_SERVED`, `TENANT_DISABLED`, `FORBIDDEN`."""
        provider, settings = self._of(token)
        claims = await provider.claims(token)
        rules = [rule for rule in settings.access if rule.group in claims.groups]
        environment = self._environment(rules, wanted)
        tenant = self._tenants.find(self._tenant_of(settings))
        if tenant is None or not tenant.is_active:
            raise tenant_disabled()
        granted = [rule.scopes for rule in rules if environment in rule.environments]
        return Principal(
            id=_id_of(claims),
            tenant_id=tenant.id,
            environment=environment,
            scopes=frozenset(scope for scopes in granted for scope in scopes),
            models=None,
            groups=claims.groups,
            epoch=epoch,
            known=_known(claims),
        )

    def _of(self, token: str) -> tuple[Provider, ProviderSettings]:
        """By the issuer that the token names, which is believed once it is checked."""
        try:
            issuer = jwt.decode(token, options={"verify_signature": False}).get("iss")
        except jwt.PyJWTError:
            issuer = None
        found = self._providers.get(issuer) if isinstance(issuer, str) else None
        if found is None:
            raise no_provider()
        return found

    def _tenant_of(self, settings: ProviderSettings) -> str:
        tenant = self._tenants.find(settings.tenant)
        if tenant is None:
            raise UserError(
                Code.CONFIG_INVALID,
                f"identity_providers: there is no tenant {settings.tenant!r} for "
                f"{settings.issuer}: see `freehold tenant list`.",
            )
        return tenant.id

    def _environment(self, rules: Sequence[AccessRule], wanted: str | None) -> Environment:
        allowed = [each for rule in rules for each in rule.environments]
        if wanted is None:
            if not allowed:
                raise _not_allowed()
            chosen = allowed[0]
        else:
            if wanted not in {each.value for each in allowed}:
                raise _not_allowed()
            chosen = Environment(wanted)
        if chosen not in self._environments:
            raise not_served(chosen)
        return chosen


def looks_like_token(credential: str) -> bool:
    """A JWT in compact form, which no API key of ours looks like."""
    return credential.startswith("ey") and credential.count(".") == 2


def _known(claims: Claims) -> tuple[tuple[str, str], ...]:
    known = (("issuer", claims.issuer), ("subject", claims.subject), ("email", claims.email or ""))
    return tuple((name, value) for name, value in known if value)


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
