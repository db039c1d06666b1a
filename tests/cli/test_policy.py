"""`freehold policy`, on a running gateway and on a resting home."""

import json
from pathlib import Path
from uuid import uuid4

import pytest

from tests.cli.conftest import Run
from tests.cli.spoken import failed, said

# Of a tenant of its own, so that the gateway which others use goes on serving them.
_CLOSED = '@id("closed") forbid (principal, action, resource) when { context.minute < 360 };\n'


@pytest.fixture
def policy(tmp_path: Path) -> str:
    path = tmp_path / "nights.cedar"
    path.write_text(_CLOSED)
    return str(path)


def test_a_policy_is_written_shown_replaced_and_removed(run: Run, policy: str) -> None:
    tenant = f"acme-{uuid4().hex[:8]}"
    said(run, "tenant", "create", tenant)
    of = ("--tenant", tenant)
    assert said(run, "policy", "list", *of) == []
    written = said(run, "policy", "set", "nights", policy, *of)
    assert (written["name"], written["text"]) == ("nights", _CLOSED)
    assert written["tenant"].startswith("ten_")
    assert said(run, "policy", "list", *of) == [written]
    assert run("policy", "show", "nights", *of).stdout == _CLOSED
    Path(policy).write_text("permit (principal, action, resource);")
    said(run, "policy", "set", "nights", policy, *of)
    (again,) = said(run, "policy", "list", *of)
    assert again["text"] == "permit (principal, action, resource);"
    assert "nights" in run("policy", "list", *of).stdout
    assert said(run, "policy", "rm", "nights", *of) == {"name": "nights", "removed": True}
    for words in (("show", "nights"), ("rm", "nights")):
        failed(run("policy", *words, *of, "--json"), "not_found")
    assert "default ones hold" in run("policy", "list", *of).stdout


def test_a_wrong_policy_is_refused_and_the_right_one_stays(run: Run, policy: str) -> None:
    tenant = f"acme-{uuid4().hex[:8]}"
    said(run, "tenant", "create", tenant)
    of = ("--tenant", tenant)
    said(run, "policy", "set", "nights", policy, *of)
    for text, why in (("forbid (", "unexpected"), ("", "at least one")):
        Path(policy).write_text(text)
        assert why in failed(
            run("policy", "set", "nights", policy, *of, "--json"), "policy_invalid"
        )
        assert why in failed(run("policy", "check", policy, "--json"), "policy_invalid")
    assert run("policy", "show", "nights", *of).stdout == _CLOSED
    assert "Traceback" not in run("policy", "set", "nights", "/nowhere", *of).output
    failed(run("policy", "set", "nights", "/nowhere", *of, "--json"), "file_invalid")
    failed(run("policy", "list", "--tenant", "nobody", "--json"), "not_found")
    both = run("policy", "list", "--tenant", tenant, "--installation")
    assert both.exit_code == 2
    assert "choose one" in both.output


def test_policies_come_from_standard_input_too(offline: Run) -> None:
    ended = offline("policy", "set", "nights", "-", "--installation", "--json", input=_CLOSED)
    assert json.loads(ended.stdout)["tenant"] is None
    assert offline("policy", "check", "-", input=_CLOSED).stdout == "The policy is valid.\n"


def test_the_schema_and_the_default_policies_can_be_read(offline: Run) -> None:
    assert "entity Route" in offline("policy", "schema").stdout
    assert '@id("tenants-are-divided")' in offline("policy", "schema", "--default").stdout


def test_policies_are_tried_on_cases_before_they_count(
    offline: Run, policy: str, tmp_path: Path
) -> None:
    cases = tmp_path / "cases.yaml"
    cases.write_text(
        "- {name: at noon, at: 2026-11-25T12:00:00Z, expect: allow}\n"
        "- {name: at night, at: 2026-11-25T03:00:00Z, expect: deny, because: nights/closed}\n"
    )
    right = offline("policy", "test", str(cases), "--with", policy)
    assert right.exit_code == 0, right.output
    assert "2 of 2 are as expected." in right.stdout
    wrong = offline("policy", "test", str(cases))
    assert wrong.exit_code == 1
    assert "1 of 2 are as expected." in wrong.stdout
    found = json.loads(offline("policy", "test", str(cases), "--json").stdout)
    assert [each["right"] for each in found] == [True, False]
    cases.write_text("- {expect: maybe}\n")
    failed(offline("policy", "test", str(cases), "--json"), "policy_invalid")
    cases.write_text("{: :")
    failed(offline("policy", "test", str(cases), "--json"), "file_invalid")
