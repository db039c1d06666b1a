"""Nobody grants what they do not have."""

from collections.abc import Collection
from dataclasses import replace

from freehold.core.binding import OF_ALL, Environment, Principal, Scope
from freehold.core.errors import Code, UserError
from freehold.core.role import RoleGrant
from freehold.secure.keys import KeyRequest
from freehold.secure.network import covers


def attenuated(grantor: Principal, wanted: KeyRequest) -> KeyRequest:
    """The key that `grantor` may make of what is wanted: what is left open is as narrow
    as the grantor's own. Raises `UserError(FORBIDDEN)` naming the first thing that is
    more than the grantor has."""
    _check_place(grantor, wanted)
    if not (grantor.is_local or wanted.scopes <= grantor.scopes):
        raise _refused("Only scopes and roles that you have can be given.", "scopes")
    models = grantor.models if wanted.models is None else wanted.models
    if grantor.models is not None and models is not None and not models <= grantor.models:
        raise _refused("A key can only be given models that you may use.", "models")
    networks = grantor.networks if wanted.networks is None else wanted.networks
    if not covers(grantor.networks, networks):
        raise _refused("A key can only be given networks within your own.", "networks")
    certificates = grantor.certificates if wanted.certificates is None else wanted.certificates
    if not (grantor.certificates is None or set(certificates or ()) <= grantor.certificates):
        raise _refused("A key can only be given certificates of your own key.", "certificates")
    ends = grantor.expires_at_us if wanted.expires_at_us is None else wanted.expires_at_us
    if grantor.expires_at_us is not None and ends is not None and ends > grantor.expires_at_us:
        raise _refused("A key cannot be valid for longer than your own.", "expires_in_days")
    return replace(
        wanted, models=models, networks=networks, certificates=certificates, expires_at_us=ends
    )


def check_use(
    grantor: Principal, tenant_id: str, environment: Environment, aliases: Collection[str]
) -> None:
    """Work of ours that asks models is for who could make a key which does. Raises as
    `attenuated`."""
    wanted = KeyRequest(
        tenant_id, environment, "work", frozenset({Scope.INFER}), models=frozenset(aliases),
        networks=grantor.networks, certificates=grantor.certificates,
        expires_at_us=grantor.expires_at_us,
    )  # fmt: skip
    try:
        attenuated(grantor, wanted)
    except UserError as error:
        named = ", ".join(sorted(aliases))
        raise _refused(f"This asks {named}. {error.message}", error.param or "models") from None


def check_role(grantor: Principal, wanted: RoleGrant) -> None:
    """Raises `UserError(FORBIDDEN)` for a role that is more than the grantor has. A group
    has it without an end and from everywhere, so only who is not limited gives any."""
    asked = KeyRequest(
        wanted.tenant_id, wanted.environment, wanted.group, frozenset({wanted.role.scope})
    )
    made = attenuated(grantor, asked)
    if made != asked:
        raise _refused(
            "Roles are given by who is not limited to models, networks or a time.", "role"
        )


def _check_place(grantor: Principal, wanted: KeyRequest) -> None:
    """In which tenant and environment the key would be."""
    if wanted.environment is not grantor.environment and not grantor.is_local:
        raise _refused(
            f"Your key belongs to {grantor.environment}: give rights in {wanted.environment} "
            "with a key of that environment.",
            "environment",
        )
    is_own = wanted.tenant_id == grantor.tenant_id
    is_operator = grantor.is_local or bool(OF_ALL & grantor.scopes)
    if not (is_own or is_operator):
        raise _refused("Rights can only be given in your own tenant.", "tenant")
    if OF_ALL & wanted.scopes and not is_own:
        raise _refused("Who operates the installation has a key of your own tenant.", "scopes")
    if wanted.sha256 is not None and not is_operator:
        raise _refused("Only who operates the installation takes over keys by hash.", "sha256")


def _refused(message: str, param: str) -> UserError:
    return UserError(Code.FORBIDDEN, message, param=param)
