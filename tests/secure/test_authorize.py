"""Who may do what: closed unless listed, and "not yours" looks like "not there"."""

import pytest

from freehold.core.binding import (
    Binding,
    Environment,
    Isolation,
    Price,
    Principal,
    Priority,
    Route,
    Scope,
)
from freehold.core.errors import Code, UserError
from freehold.secure import authorize


def _principal(
    *scopes: Scope,
    tenant: str = "ten_a",
    environment: Environment = Environment.DEV,
    models: frozenset[str] | None = None,
) -> Principal:
    return Principal("key_1", tenant, environment, frozenset(scopes), models)


def _binding(principal: Principal, alias: str = "m") -> Binding:
    route = Route(
        "rte_1", "ten_a", Environment.DEV, alias, "fake", "p", None, None, "m", 1
    )  # fmt: skip
    return Binding(
        "req_1", principal, route, Isolation.NOCACHE, "", Price(), Priority.INTERACTIVE,
        "chat/completions", False, None, None,
    )  # fmt: skip


def _refusal(principal: Principal, alias: str = "m") -> UserError:
    with pytest.raises(UserError) as refused:
        authorize.may_use(_binding(principal, alias))
    return refused.value


@pytest.mark.parametrize("needed", list(Scope))
def test_a_scope_opens_what_needs_it_and_nothing_else(needed: Scope) -> None:
    for scopes in ((), *((scope,) for scope in Scope), tuple(Scope)):
        if needed in scopes:
            authorize.require(_principal(*scopes), needed)
            continue
        with pytest.raises(UserError) as refused:
            authorize.require(_principal(*scopes), needed)
        assert refused.value.code is Code.FORBIDDEN
        assert needed.value in refused.value.message


def test_a_key_uses_the_models_of_its_own_tenant_environment_and_list() -> None:
    authorize.may_use(_binding(_principal(Scope.INFER)))
    authorize.may_use(_binding(_principal(Scope.INFER, Scope.ADMIN, models=frozenset({"m"}))))


@pytest.mark.parametrize(
    "principal",
    [
        _principal(Scope.INFER, tenant="ten_b"),
        _principal(Scope.INFER, environment=Environment.PROD),
        _principal(Scope.INFER, models=frozenset()),
        _principal(Scope.INFER, models=frozenset({"M", "m ", "mm", "*"})),
    ],
)
def test_what_is_not_yours_is_told_exactly_like_what_is_not_there(principal: Principal) -> None:
    refused, missing = _refusal(principal), authorize.model_not_found("m")
    assert (refused.code, refused.message, refused.param) == (
        missing.code, missing.message, missing.param,
    )  # fmt: skip
    assert refused.code is Code.MODEL_NOT_FOUND


def test_an_administrator_without_the_right_to_infer_uses_no_model() -> None:
    assert _refusal(_principal(Scope.ADMIN)).code is Code.FORBIDDEN


def test_a_long_or_hostile_name_is_shown_short_and_harmless() -> None:
    message = authorize.model_not_found("\x1b[31m\n" + "x" * 5000).message
    assert len(message) < 200
    assert message.isprintable()
