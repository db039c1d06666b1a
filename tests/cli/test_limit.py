"""`freehold limit`, on a running gateway and on a resting home."""

from uuid import uuid4

import pytest

from tests.cli.conftest import Run
from tests.cli.spoken import failed, said


@pytest.fixture
def of(run: Run) -> tuple[str, str]:
    """A tenant of its own, so that the gateway which others use goes on serving them."""
    tenant = f"acme-{uuid4().hex[:8]}"
    said(run, "tenant", "create", tenant)
    return "--tenant", tenant


def test_a_limit_is_set_listed_replaced_and_removed(run: Run, of: tuple[str, str]) -> None:
    made = said(run, "limit", "set", "money", "12.5", "--per", "month", *of)
    assert (made["amount"], made["used"], made["unit"]) == (12_500_000, 0, "micro-USD")
    assert (made["environment"], made["own"], made["set_by"]) == ("dev", False, "local")
    again = said(run, "limit", "set", "money", "20", "--per", "month", *of)
    assert (again["id"], again["amount"]) == (made["id"], 20_000_000)
    wide = said(run, "limit", "set", "concurrency", "8", "--all-environments", *of)
    assert wide["environment"] is None
    prod = said(run, "limit", "set", "tokens", "5", "--per", "total", "--env", "prod", *of)
    listed = said(run, "limit", "list", *of)
    assert [each["id"] for each in listed] == [made["id"], wide["id"]]
    shown = run("limit", "list", *of).stdout
    for words in ("20.00 USD", "8 requests", "at once", "all environments"):
        assert words in shown
    assert said(run, "limit", "rm", made["id"], *of) == {"id": made["id"], "removed": True}
    failed(run("limit", "rm", made["id"], *of, "--json"), "not_found")
    failed(run("limit", "rm", prod["id"], *of, "--env", "dev", "--json"), "not_found")
    assert said(run, "limit", "rm", prod["id"], *of, "--env", "prod")["removed"]


def test_a_key_has_a_limit_of_its_own(run: Run, of: tuple[str, str]) -> None:
    key = said(run, "key", "create", "bot", *of)
    made = said(run, "limit", "set", "requests", "60", "--per", "minute", "--key", key["id"], *of)
    assert made["subject"] == key["id"]
    rotated = said(run, "key", "rotate", key["id"], *of)
    again = said(
        run, "limit", "set", "requests", "30", "--per", "minute", "--key", rotated["id"], *of
    )
    assert (again["id"], again["amount"]) == (made["id"], 30)
    failed(
        run("limit", "set", "requests", "1", "--per", "day", "--key", "key_none", *of, "--json"),
        "not_found",
    )


def test_a_limit_that_makes_no_sense_is_told_in_a_sentence(run: Run, of: tuple[str, str]) -> None:
    assert "periods: day, month, total" in failed(
        run("limit", "set", "money", "1", "--per", "minute", *of, "--json"), "invalid_value"
    )
    assert "whole number" in failed(
        run("limit", "set", "tokens", "1.5", "--per", "day", *of, "--json"), "invalid_value"
    )
    failed(run("limit", "set", "tokens", "many", "--per", "day", *of, "--json"), "invalid_value")
    assert run("limit", "set", "time", "1", *of).exit_code == 2
    assert "freehold limit set money 100" in run("limit", "list", *of).stdout
