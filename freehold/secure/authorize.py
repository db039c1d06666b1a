"""Who may do what: closed unless listed."""

from freehold.core.binding import Binding, Principal, Scope
from freehold.core.errors import Code, UserError


def require(principal: Principal, scope: Scope) -> None:
    """Raises `UserError(FORBIDDEN)` unless the principal holds `scope`."""
    if scope not in principal.scopes:
        raise UserError(
            Code.FORBIDDEN,
            f"This API key lacks the scope {scope.value!r}: "
            "ask your administrator for one that has it.",
        )


def may_use(binding: Binding) -> None:
    """Raises unless the binding's principal may use its route. A model outside the
    key's list looks like one that is not there."""
    principal, route = binding.principal, binding.route
    require(principal, Scope.INFER)
    mine = route.tenant_id == principal.tenant_id and route.environment == principal.environment
    listed = principal.models is None or route.alias in principal.models
    if not (mine and listed):
        raise model_not_found(route.alias)


def model_not_found(alias: str) -> UserError:
    shown = alias if len(alias) <= 60 else alias[:57] + "..."
    return UserError(
        Code.MODEL_NOT_FOUND,
        f"There is no model {shown!r} for this API key: GET /v1/models lists what there is.",
        param="model",
    )
