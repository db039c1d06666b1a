"""`freehold price`: what models cost on this installation."""

from tests.cli.conftest import Run
from tests.cli.spoken import failed, said


def test_prices_are_told_with_where_they_are_from(online: Run) -> None:
    found = said(online, "price", "list", "--days", "7")
    assert found["currency"] == "USD"
    (tiny,) = [each for each in found["data"] if each["model"] == "tiny"]
    assert tiny["source"] == "assumed: rented processors"
    (rates,) = tiny["rates"]
    assert rates["input"] > 0
    assert rates["output"] > 0
    assert 0 < rates["cached"] <= rates["input"]
    machine = found["machine"]
    assert machine["assumed"]
    assert machine["per_hour"] > 0
    shown = online("price", "list").stdout
    assert "Say what it really costs in `prices.machine`" in shown
    assert "tiny" in shown


def test_without_a_gateway_a_sentence_says_what_to_do(offline: Run) -> None:
    assert "freehold up" in failed(offline("price", "list", "--json"), "gateway_not_running")
