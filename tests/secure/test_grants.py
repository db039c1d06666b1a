"""Attenuation: whatever is asked for, a new key may nothing that its maker may not."""

from dataclasses import dataclass, replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.core.binding import Environment, Principal, Scope
from freehold.core.errors import Code, UserError
from freehold.secure.grants import attenuated
from freehold.secure.keys import KeyRequest
from freehold.secure.network import is_within

_CERTIFICATES = ("spiffe://acme/web", "spiffe://acme/edge", "CN=web")
_TENANTS = ("ten_home", "ten_other")
_MODELS = ("a", "b", "c")
_NETWORKS = (
    "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "192.168.0.0/16", "0.0.0.0/0", "::/0",
    "2001:db8::/32", "2001:db8::1/128",
)  # fmt: skip
_ADDRESSES = ("10.0.0.1", "10.1.0.1", "10.1.2.3", "192.168.1.1", "8.8.8.8", "2001:db8::1", "::1")


@dataclass(frozen=True)
class Deed:
    """Something that somebody could do with a key."""

    tenant: str
    environment: Environment
    scope: Scope
    model: str
    address: str
    at_us: int
    certificate: str | None


_deeds = st.builds(
    Deed, st.sampled_from(_TENANTS), st.sampled_from(Environment), st.sampled_from(Scope),
    st.sampled_from(_MODELS), st.sampled_from(_ADDRESSES), st.integers(0, 100),
    st.none() | st.sampled_from(_CERTIFICATES),
)  # fmt: skip
_scopes = st.frozensets(st.sampled_from(Scope))
_models = st.none() | st.frozensets(st.sampled_from(_MODELS))
_networks = st.none() | st.frozensets(st.sampled_from(_NETWORKS), min_size=1, max_size=3)
_certificates = st.none() | st.frozensets(st.sampled_from(_CERTIFICATES), min_size=1)
_ends = st.none() | st.integers(1, 100)
_grantors = st.builds(
    Principal, st.just("key_1"), st.just("ten_home"), st.sampled_from(Environment), _scopes,
    _models, _networks, _ends, certificates=_certificates,
)  # fmt: skip
_requests = st.builds(
    KeyRequest, st.sampled_from(_TENANTS), st.sampled_from(Environment), st.just("x"), _scopes,
    _models, _ends, st.none(), _networks, certificates=_certificates,
)  # fmt: skip


def _may(who: Principal | KeyRequest, deed: Deed) -> bool:
    """Written anew, for each thing that is done: sets of rights are compared nowhere here."""
    is_far = deed.tenant != who.tenant_id
    return (
        (not is_far or bool(who.scopes & {Scope.OPERATE, Scope.OWN}))
        and deed.environment is who.environment
        and deed.scope in who.scopes
        and (who.models is None or deed.model in who.models)
        and (who.networks is None or is_within(deed.address, who.networks))
        and (who.certificates is None or deed.certificate in who.certificates)
        and (who.expires_at_us is None or deed.at_us < who.expires_at_us)
    )


@given(grantor=_grantors, wanted=_requests, deeds=st.lists(_deeds, min_size=20))
def test_what_a_granted_key_may_do_its_grantor_may(
    grantor: Principal, wanted: KeyRequest, deeds: list[Deed]
) -> None:
    try:
        granted = attenuated(grantor, wanted)
    except UserError as error:
        if error.code is not Code.FORBIDDEN:
            raise
        return
    for deed in deeds:
        assert not _may(granted, deed) or _may(grantor, deed), deed
        assert not _may(granted, deed) or _may(wanted, deed), "nor more than was wanted"


@given(grantor=_grantors, deeds=st.lists(_deeds, min_size=10))
def test_exactly_ones_own_rights_can_be_granted(grantor: Principal, deeds: list[Deed]) -> None:
    """The refusals are no broader than they must be."""
    same = KeyRequest(
        grantor.tenant_id, grantor.environment, "x", grantor.scopes, grantor.models,
        grantor.expires_at_us, None, grantor.networks, certificates=grantor.certificates,
    )  # fmt: skip
    granted = attenuated(grantor, same)
    assert granted == same
    for deed in deeds:
        assert _may(granted, deed) == _may(grantor, deed)


_GRANTOR = Principal(
    "key_1", "ten_home", Environment.STAGING, frozenset({Scope.INFER, Scope.ADMIN}),
    frozenset({"a", "b"}), frozenset({"10.0.0.0/8"}), 50,
    certificates=frozenset({"spiffe://acme/web"}),
)  # fmt: skip
_WANTED = KeyRequest("ten_home", Environment.STAGING, "x", frozenset({Scope.INFER}))


def test_what_is_left_open_is_as_the_grantor_has_it() -> None:
    granted = attenuated(_GRANTOR, _WANTED)
    assert (granted.models, granted.networks, granted.expires_at_us) == (
        _GRANTOR.models, _GRANTOR.networks, 50,
    )  # fmt: skip
    assert granted.certificates == _GRANTOR.certificates


@pytest.mark.parametrize(
    ("param", "more"),
    [("scopes", {"scopes": frozenset({Scope.OPERATE})}),
     ("models", {"models": frozenset({"a", "c"})}),
     ("networks", {"networks": frozenset({"10.0.0.0/7"})}),
     ("networks", {"networks": frozenset({"10.1.0.0/16", "192.168.0.0/16"})}),
     ("networks", {"networks": frozenset({"::ffff:10.0.0.0/104"})}),
     ("certificates", {"certificates": frozenset({"spiffe://acme/web", "spiffe://acme/x"})}),
     ("expires_in_days", {"expires_at_us": 51}),
     ("environment", {"environment": Environment.PROD}),
     ("tenant", {"tenant_id": "ten_other"}),
     ("sha256", {"sha256": bytes(32)})],
)  # fmt: skip
def test_more_is_refused_by_name(param: str, more: dict[str, object]) -> None:
    with pytest.raises(UserError) as refused:
        attenuated(_GRANTOR, replace(_WANTED, **more))  # type: ignore[arg-type]
    assert (refused.value.code, refused.value.param) == (Code.FORBIDDEN, param)


def test_who_operates_makes_keys_for_other_tenants_and_no_second_operator_there() -> None:
    operator = replace(_GRANTOR, scopes=frozenset(Scope), models=None)
    far = replace(_WANTED, tenant_id="ten_other")
    assert attenuated(operator, far).tenant_id == "ten_other"
    assert attenuated(operator, replace(_WANTED, scopes=frozenset(Scope))).scopes == set(Scope)
    with pytest.raises(UserError):
        attenuated(operator, replace(far, scopes=frozenset({Scope.OPERATE})))
    with pytest.raises(UserError):
        attenuated(operator, replace(far, environment=Environment.PROD))


def test_the_owner_of_the_home_makes_any_key_in_any_environment() -> None:
    owner = Principal(
        "local", "ten_home", Environment.DEV, frozenset({Scope.ADMIN, Scope.OPERATE}), None,
        is_local=True,
    )  # fmt: skip
    for environment in Environment:
        for tenant in _TENANTS:
            wanted = replace(_WANTED, tenant_id=tenant, environment=environment)
            assert attenuated(owner, wanted) == wanted


def test_the_addresses_of_these_tests_are_what_they_look_like() -> None:
    assert all(ip_address(each) for each in _ADDRESSES)
