"""Cases are read strictly, and say which policy decided."""

import pytest
import yaml

from freehold.core.errors import Code, UserError
from freehold.core.policy import Policy
from freehold.secure.policy import Policies
from freehold.secure.policy_cases import cases_in, tried

CASES = """
- name: by day
  at: 2026-11-25T12:00:00Z
  expect: allow
  because: freehold/users-use-models
- name: at night, told in another zone
  at: 2026-11-25T06:30:00+05:00
  expect: deny
  because: nights/closed
- name: somebody else's model
  at: 2026-11-25T12:00:00Z
  what: {tenant: other, alias: llama}
  expect: deny
  because: freehold/tenants-are-divided
- name: an auditor reads
  who: {scopes: [audit], environment: prod}
  action: read_usage
  what: {environment: prod}
  at: 2026-11-25T12:00:00Z
  expect: allow
- name: and changes nothing
  who: {scopes: [audit]}
  action: change_keys
  at: 2026-11-25T12:00:00Z
  expect: deny
- name: from the office
  address: 10.1.2.3
  at: 2026-11-25T12:00:00Z
  expect: deny
"""
NIGHTS = Policy(
    "nights", '@id("closed") forbid (principal, action, resource) when { context.minute < 360 };'
)


def test_cases_say_what_is_as_expected_and_what_is_not() -> None:
    found = tried(Policies([NIGHTS]), cases_in(yaml.safe_load(CASES)))
    assert [each.is_right for each in found] == [True, True, True, True, True, False]
    assert found[-1].decision.because == ("freehold/users-use-models",)


def test_a_case_that_names_another_policy_is_wrong() -> None:
    case = {"expect": "allow", "because": "nights/closed", "at": "2026-11-25T12:00:00Z"}
    [found] = tried(Policies([NIGHTS]), cases_in([case]))
    assert found.decision.is_allowed
    assert not found.is_right


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "tuple"),
        ([], "at least 1"),
        ([{}], "0.expect"),
        ([{"expect": "maybe"}], "0.expect"),
        ([{"expect": "deny", "action": "fly"}], "0.action"),
        ([{"expect": "deny", "who": {"scope": "infer"}}], "0.who.scope"),
        ([{"expect": "deny", "who": {"scopes": ["root"]}}], "0.who.scopes.0"),
        ([{"expect": "deny", "address": "10.0.0"}], "0.address"),
        ([{"expect": "deny", "at": "noon"}], "0.at"),
    ],
)
def test_cases_that_cannot_be_read_are_refused_by_name(content: object, said: str) -> None:
    with pytest.raises(UserError) as caught:
        cases_in(content)
    assert caught.value.code is Code.POLICY_INVALID
    assert said in caught.value.message
