"""Who may do what, held against a reference that is small enough to be read at a glance."""

import dataclasses
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.core.action import Action, Installation, Space, TenantItself
from freehold.core.binding import Environment, Principal, Route, Scope
from freehold.core.clock import Clock
from freehold.core.errors import Code, UserError
from freehold.core.policy import Policy
from freehold.secure.policy import (
    Circumstances,
    Decision,
    Policies,
    Question,
    Resource,
    check,
    circumstances,
)

NOON = Circumstances("10.1.2.3", 12 * 60, 2)
TENANTS = ("ten_a", "ten_b")
ALIASES = ("llama", "poet")
ON_SPACE = {
    Action.LIST_MODELS, Action.READ_KEYS, Action.CHANGE_KEYS, Action.READ_ROUTES,
    Action.CHANGE_ROUTES, Action.READ_ADAPTERS, Action.CHANGE_ADAPTERS, Action.READ_USAGE,
    Action.READ_DATASETS, Action.CHANGE_DATASETS,
    Action.READ_AUDIT, Action.READ_ROLES, Action.CHANGE_ROLES, Action.READ_EVENTS,
    Action.READ_CONTENT, Action.REMOVE_CONTENT, Action.READ_JOBS, Action.CHANGE_JOBS,
    Action.FEEDBACK,
}  # fmt: skip
ON_TENANT = {
    Action.READ_TENANTS, Action.CHANGE_TENANTS, Action.READ_SESSIONS, Action.CHANGE_SESSIONS,
    Action.READ_POLICIES, Action.CHANGE_POLICIES, Action.FORGET_SUBJECTS,
}  # fmt: skip
ON_ALL = {
    Action.READ_MODELS, Action.READ_STATUS, Action.READ_OVERALL_AUDIT, Action.READ_POLICIES,
    Action.CHANGE_POLICIES,
    Action.READ_BACKUPS, Action.MAKE_BACKUPS, Action.READ_ALL_EVENTS, Action.READ_DECISIONS,
    Action.CHANGE_DECISIONS, Action.ROTATE_SIGNING_KEY,
    Action.REVOKE_SIGNING_KEY,
}  # fmt: skip


def key(**changes: Any) -> Principal:
    made = Principal(
        id="key_1", tenant_id="ten_a", environment=Environment.DEV,
        scopes=frozenset({Scope.INFER}), models=None,
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


def route(**changes: Any) -> Route:
    made = Route(
        id="rte_1", tenant_id="ten_a", environment=Environment.DEV, alias="llama",
        engine="openvino", pool="p", base_digest="sha256:aa", adapter_digest=None,
        engine_model="m", created_at_us=0,
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


def decide(
    policies: Policies,
    principal: Principal,
    action: Action,
    resource: Resource,
    when: Circumstances = NOON,
) -> Decision:
    return policies.decide(Question(principal, action, resource, when))


# a world to choose from, and what should come of it

scopes = st.frozensets(st.sampled_from(list(Scope)))
environments = st.sampled_from(list(Environment))
principals = st.builds(
    Principal,
    id=st.sampled_from(["key_1", "key_2"]),
    tenant_id=st.sampled_from(TENANTS),
    environment=environments,
    scopes=scopes,
    models=st.none() | st.frozensets(st.sampled_from(ALIASES)),
    is_local=st.booleans(),
)
routes = st.builds(
    route,
    tenant_id=st.sampled_from(TENANTS),
    environment=environments,
    alias=st.sampled_from(ALIASES),
    adapter_digest=st.none() | st.just("sha256:bb"),
)
spaces = st.builds(Space, tenant_id=st.sampled_from(TENANTS), environment=environments)
tenants = st.builds(TenantItself, tenant_id=st.sampled_from(TENANTS))
asked = st.one_of(
    st.tuples(st.just(Action.INFER), routes),
    st.tuples(st.sampled_from(sorted(ON_SPACE)), spaces),
    st.tuples(st.sampled_from(sorted(ON_TENANT)), tenants),
    st.tuples(st.sampled_from(sorted(ON_ALL)), st.just(Installation())),
)


def reference(who: Principal, action: Action, what: Resource) -> bool:
    """The default policies once more, in the plainest Python."""
    is_mine = isinstance(what, Installation) or what.tenant_id == who.tenant_id
    here = set(Environment) if who.is_local else {who.environment}
    if isinstance(what, Route | Space) and what.environment not in here:
        return False
    if action is Action.INFER:
        listed = who.models is None or (isinstance(what, Route) and what.alias in who.models)
        return Scope.INFER in who.scopes and is_mine and listed
    if action in (Action.LIST_MODELS, Action.FEEDBACK):
        allowed = {Scope.INFER, Scope.OWN} if is_mine else {Scope.OWN}
    elif action is Action.CHANGE_POLICIES:
        allowed = {Scope.OWN}
    elif action is Action.READ_CONTENT:
        allowed = {Scope.AUDIT, Scope.OWN}
    elif action in (
        Action.CHANGE_TENANTS, Action.READ_STATUS, Action.READ_OVERALL_AUDIT,
        Action.READ_ALL_EVENTS, Action.READ_BACKUPS, Action.MAKE_BACKUPS,
        Action.READ_DECISIONS, Action.CHANGE_DECISIONS, Action.ROTATE_SIGNING_KEY,
        Action.REVOKE_SIGNING_KEY,
    ):  # fmt: skip
        allowed = {Scope.OPERATE, Scope.OWN}
    elif action.startswith("read_"):
        allowed = {Scope.ADMIN, Scope.AUDIT, Scope.OPERATE, Scope.OWN}
    else:
        allowed = {Scope.ADMIN, Scope.OPERATE, Scope.OWN}
    if not is_mine:
        allowed -= {Scope.ADMIN, Scope.AUDIT}
    return bool(allowed & who.scopes)


DEFAULT = Policies()


@given(principals, asked)
@settings(max_examples=600, deadline=None)
def test_the_default_policies_decide_as_the_reference(
    who: Principal, asked: tuple[Action, Resource]
) -> None:
    found = decide(DEFAULT, who, *asked)
    assert found.is_allowed == reference(who, *asked), found
    assert found.failed == ()
    assert bool(found.because) or not found.is_allowed


WILD = st.lists(
    st.sampled_from(
        [
            "permit (principal, action, resource);",
            'permit (principal == Freehold::Key::"key_1", action, resource);',
            'permit (principal, action == Freehold::Action::"infer", resource);',
            "permit (principal, action, resource) when { !(resource in principal.tenant) };",
            'permit (principal, action, resource in Freehold::Tenant::"ten_b");',
            "permit (principal, action, resource) when { context.minute > 3 };",
        ]
    ),
    min_size=1,
    max_size=3,
)


@given(WILD, principals, asked)
@settings(max_examples=300, deadline=None)
def test_no_permit_crosses_tenants_whatever_is_written(
    texts: list[str], who: Principal, asked: tuple[Action, Resource]
) -> None:
    policies = Policies([Policy(f"own{i}", text) for i, text in enumerate(texts)])
    action, what = asked
    if not decide(policies, who, action, what).is_allowed or isinstance(what, Installation):
        return
    runs_it = action is not Action.INFER and who.scopes & {Scope.OPERATE, Scope.OWN}
    assert what.tenant_id == who.tenant_id or runs_it
    if isinstance(what, Route):
        assert who.is_local or what.environment == who.environment
        assert who.models is None or what.alias in who.models


@given(WILD, principals, asked)
@settings(max_examples=200, deadline=None)
def test_a_tenants_own_policy_changes_nothing_for_others(
    texts: list[str], who: Principal, asked: tuple[Action, Resource]
) -> None:
    theirs = [
        Policy(f"own{i}", text + text.replace("permit", "forbid"), tenant_id="ten_b")
        for i, text in enumerate(texts)
    ]
    action, what = asked
    if isinstance(what, Installation) or who.tenant_id == "ten_a" or what.tenant_id == "ten_a":
        found = decide(Policies(theirs), who, action, what)
        assert found.is_allowed == reference(who, action, what)


@pytest.mark.parametrize("action", [Action.INFER, Action.READ_KEYS, Action.CHANGE_TENANTS])
def test_nobody_without_a_scope_may_do_anything(action: Action) -> None:
    what: dict[Action, Resource] = {
        Action.INFER: route(),
        Action.READ_KEYS: Space("ten_a", Environment.DEV),
        Action.CHANGE_TENANTS: TenantItself("ten_a"),
    }
    assert decide(DEFAULT, key(scopes=frozenset()), action, what[action]) == Decision(False, ())


def test_a_decision_names_the_policies_that_made_it() -> None:
    nights = Policy(
        "nights",
        '@id("closed") forbid (principal, action, resource) when { context.minute < 360 };',
    )
    policies = Policies([nights])
    allowed = decide(policies, key(), Action.INFER, route())
    assert allowed == Decision(True, ("freehold/users-use-models",))
    at_night = decide(policies, key(), Action.INFER, route(), Circumstances(None, 359, 2))
    assert at_night == Decision(False, ("nights/closed",))
    other = decide(policies, key(), Action.INFER, route(tenant_id="ten_b"))
    assert other == Decision(False, ("freehold/tenants-are-divided",))


def test_a_policy_that_cannot_be_evaluated_denies() -> None:
    """Cedar skips it, and allows: a number that is too large is no reason to let in."""
    policies = Policies(
        [
            Policy(
                "broken",
                "forbid (principal, action, resource) when "
                "{ context.minute * 9223372036854775807 > 0 };",
            )
        ]
    )
    found = decide(policies, key(), Action.INFER, route())
    assert not found.is_allowed
    assert "broken/1" in found.failed[0]
    assert decide(DEFAULT, key(), Action.INFER, route()).is_allowed


def test_addresses_can_be_limited_and_an_unknown_one_is_not_let_in() -> None:
    office = Policy(
        "office",
        "forbid (principal, action, resource) unless "
        '{ context has address && context.address.isInRange(ip("10.0.0.0/8")) };',
    )
    policies = Policies([office])
    for address, allowed in (
        ("10.9.9.9", True),
        ("192.0.2.1", False),
        ("::1", False),
        (None, False),
    ):
        found = decide(policies, key(), Action.INFER, route(), Circumstances(address, 1, 1))
        assert found.is_allowed is allowed, address


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("permit (principal, action, resource", "unexpected"),
        ("", "at least one"),
        ("permit (principal, action, resource) when { principal.name == 1 };", "name"),
        ('permit (principal, action == Freehold::Action::"fly", resource);', "fly"),
        ('permit (principal == User::"me", action, resource);', "User"),
        ("permit (principal, action, resource) when { context.address.isLoopback() };", "address"),
        ("permit (principal == ?principal, action, resource);", "template"),
        ("@id(\"a\") permit (principal, action, resource);\n" * 2, "'a'"),
        ("permit (principal, action, resource);" * 3000, "characters"),
    ],
)  # fmt: skip
def test_a_policy_is_refused_when_it_is_written(text: str, said: str) -> None:
    for attempt in (lambda: check(Policy("mine", text)), lambda: Policies([Policy("mine", text)])):
        with pytest.raises(UserError, match="'mine' is refused") as caught:
            attempt()
        assert caught.value.code is Code.POLICY_INVALID
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_policy_cannot_take_the_place_of_one_that_is_there() -> None:
    text = '@id("tenants-are-divided") permit (principal, action, resource);'
    with pytest.raises(UserError, match="that come with Freehold have its name"):
        Policies([Policy("freehold", text)])
    with pytest.raises(UserError, match="another policy has its name"):
        Policies([Policy("mine", text), Policy("mine", text)])


def test_two_tenants_may_have_policies_of_one_name() -> None:
    forbid = "forbid (principal, action, resource);"
    policies = Policies([Policy("stop", forbid, "ten_b"), Policy("stop", forbid, "ten_c")])
    assert decide(policies, key(), Action.INFER, route()).is_allowed
    theirs = decide(policies, key(tenant_id="ten_b"), Action.INFER, route(tenant_id="ten_b"))
    assert theirs == Decision(False, ("stop/1",))


def test_the_time_is_told_in_utc_from_monday_on() -> None:
    moment = datetime(2024, 11, 25, 15, 59, 59, 999_999, UTC)  # a Monday

    class Stopped(Clock):
        def wall_us(self) -> int:
            return int(moment.timestamp()) * 1_000_000 + moment.microsecond

    assert circumstances(Stopped(), None) == Circumstances(None, 15 * 60 + 59, 0)


def test_what_no_policy_looks_at_is_not_told_apart() -> None:
    first = decide(DEFAULT, key(), Action.INFER, route(), Circumstances("10.0.0.1", 1, 1))
    again = decide(DEFAULT, key(), Action.INFER, route(), Circumstances("10.0.0.2", 2, 2))
    assert again is first
