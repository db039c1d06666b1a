"""`freehold session`, `freehold role` and `freehold policy explain`, with and without a gateway."""

from pathlib import Path
from uuid import uuid4

import pytest

from freehold.cli.reaching import reach
from freehold.config.home import Home
from tests.cli.conftest import Run
from tests.cli.spoken import failed, said
from tests.serve.people import session

_ISSUER = "https://login.example"
_PERSON = "per_" + "b" * 26


@pytest.fixture
def corp(offline: Run, tmp_path: Path) -> Run:
    """A home at rest that trusts a provider."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "freehold.yaml").write_text(
        f"identity_providers:\n- issuer: {_ISSUER}\n  name: corp\n  audiences: [x]\n"
        "  access: [{group: staff, roles: [user, auditor]}]\n"
    )
    return offline


def test_sessions_are_listed_and_ended_on_a_home_at_rest(corp: Run, tmp_path: Path) -> None:
    assert said(corp, "session", "list") == []
    assert "Nobody is logged in" in corp("session", "list").stdout
    with reach.offline(Home(tmp_path / "home")) as (store, _, tenant_id):
        store.add_session(session(tenant_id), b"hash", b"token", None)
    (listed,) = said(corp, "session", "list", "--person", _PERSON)
    assert (listed["name"], listed["groups"]) == ("ada@example.org", ["ml"])
    assert "ada@example.org" in corp("session", "list").stdout
    assert said(corp, "session", "revoke", "ses_01")["ended_at"]
    assert said(corp, "session", "list") == []
    done = said(corp, "session", "revoke", "--person", _PERSON)
    assert done == {"person": _PERSON, "sessions_ended": 0}
    assert said(corp, "session", "revoke", "--all")["person"] is None


def test_a_session_must_be_named_one_way(run: Run) -> None:
    for words in ((), ("ses_1", "--all"), ("--all", "--person", _PERSON)):
        assert run("session", "revoke", *words).exit_code == 2
    failed(run("session", "revoke", "ses_nobody", "--json"), "not_found")
    failed(run("session", "revoke", "--person", "ada", "--json"), "invalid_value")


def test_roles_are_granted_listed_and_taken_away(corp: Run) -> None:
    assert "what the settings give" in corp("role", "list").stdout
    given = said(corp, "role", "grant", "user", "ml-interns", "--env", "prod")
    assert (given["provider"], given["environment"]) == (_ISSUER, "prod")
    assert said(corp, "role", "list") == []
    (listed,) = said(corp, "role", "list", "--env", "prod")
    assert listed == given
    assert "ml-interns" in corp("role", "list", "--env", "prod").stdout
    again = corp("role", "grant", "user", "ml-interns", "--env", "prod", "--provider", "corp")
    assert "The group ml-interns is user in prod." in again.stdout
    taken = corp("role", "revoke", "user", "ml-interns", "--env", "prod")
    assert "is no user in prod any more" in taken.stdout
    words = ("role", "revoke", "user", "ml-interns", "--env", "prod", "--json")
    failed(corp(*words), "not_found")
    failed(corp("role", "grant", "user", "g", "--provider", "other", "--json"), "not_found")
    assert corp("role", "grant", "king", "g").exit_code == 2


def test_without_a_provider_nobody_has_a_group(run: Run) -> None:
    failed(run("role", "grant", "user", "g", "--json"), "not_found")


def test_an_answer_is_explained_by_what_decided(run: Run, tmp_path: Path) -> None:
    tenant = f"acme-{uuid4().hex[:8]}"
    of = ("--tenant", tenant)
    said(run, "tenant", "create", tenant)
    key = said(run, "key", "create", "web", *of, "--model", "poet")["id"]
    asked = ("policy", "explain", "--key", key, *of)
    may = said(run, *asked, "--action", "list_models")
    assert may["allowed"]
    assert [each["name"] for each in may["policies"]] == ["freehold/users-see-models"]
    assert "permit" in may["policies"][0]["text"]
    denied = said(run, *asked, "--action", "change_keys")
    assert not denied["allowed"]
    assert [each["role"] for each in denied["missing"]] == ["admin", "operator", "owner"]
    shown = run(*asked, "--action", "change_keys").stdout
    assert shown.startswith(f"No: {key} may not change keys in dev")
    assert "The role admin (scope admin) would do: freehold/admins-administer" in shown
    policy = tmp_path / "closed.cedar"
    policy.write_text('@says("We are closed.") forbid (principal, action, resource);')
    said(run, "policy", "set", "closed", str(policy), *of)
    closed = run(*asked, "--action", "list_models").stdout
    assert "forbid closed/1: We are closed." in closed
    assert "forbid(principal, action, resource)" in closed.replace("forbid (", "forbid(")
    none = said(run, *asked, "--model", "poet")
    assert "there is no model 'poet' in dev" in none["answer"]
    said(run, "key", "revoke", key, *of)
    assert "the key was revoked" in said(run, *asked, "--action", "list_models")["answer"]
    failed(run("policy", "explain", "--key", "key_nobody", "--model", "x", "--json"), "not_found")
    for wrong in ((), ("--key", key, "--group", "g")):
        failed(run("policy", "explain", *wrong, "--model", "x", "--json"), "invalid_value")


def test_people_are_explained_by_their_groups(corp: Run, tmp_path: Path) -> None:
    asked = ("policy", "explain", "--action", "read_keys")
    staff = said(corp, *asked, "--group", "staff", "--group", "others")
    assert staff["allowed"]
    assert staff["principal"]["roles"] == ["auditor", "user"]
    others = said(corp, *asked, "--group", "others")
    assert "none of these groups has a role in dev" in others["answer"]
    assert "auditor" in [each["role"] for each in others["missing"]]
    failed(corp(*asked, "--person", _PERSON, "--json"), "not_found")
    with reach.offline(Home(tmp_path / "home")) as (store, _, tenant_id):
        store.add_session(session(tenant_id), b"hash", b"token", None)
    assert said(corp, *asked, "--person", _PERSON)["principal"]["groups"] == ["ml"]
