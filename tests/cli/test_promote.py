"""`freehold promote`, `rollback` and `promotion`, on a running gateway and on a resting home."""

from pathlib import Path

from tests.catalog.making import peft_folder
from tests.cli.spoken import failed
from tests.cli.test_adapter import Place, place

__all__ = ["place"]  # the fixture
_STAGING = ("--env", "staging")
_FORCED = ("--force", "there is no time", "--accept-licence", "made for this test")


def _led(place: Place, folder: Path, name: str, seed: int) -> str:
    added = place.said(
        "adapter", "add", str(peft_folder(folder / name, seed)), "--base", "tiny", "--name", name
    )
    place.said("route", "set", "climber", "--base", "tiny", "--adapter", name)
    return str(added["digest"])


def test_a_revision_goes_up_and_back(place: Place, tmp_path: Path) -> None:
    first = _led(place, tmp_path, "climber-v1", 31)
    refused = failed(place.run("promote", "climber", "--to", "staging", "--json"),
                     "licence_not_accepted")  # fmt: skip
    assert "came without a manifest" in refused
    words = ("promote", "climber", "--to", "staging", "--accept-licence", "made for this test")
    refused = failed(place.run(*words, "--json"), "gate_not_passed")
    assert "climber-v1 has passed no gate" in refused
    done = place.run("promote", "climber", "--to", "staging", *_FORCED)
    assert done.exit_code == 0, done.output
    assert "climber in staging leads to climber-v1, from dev" in done.stdout
    assert "Evidence: forced over gate: there is no time." in done.stdout

    second = _led(place, tmp_path, "climber-v2", 32)
    shared = place.said("promote", "climber", "--to", "staging", "--share", "10", *_FORCED)
    assert (shared["state"], shared["share"]) == ("sharing", 10)
    route = place.said("route", "show", "climber", *_STAGING)
    assert (route["adapter_digest"], route["candidate"]["adapter_digest"]) == (first, second)
    whole = place.said("promote", "climber", "--to", "staging", "--share", "100")
    assert (whole["id"], whole["state"]) == (shared["id"], "whole")
    assert place.said("route", "show", "climber", *_STAGING)["adapter_digest"] == second

    listed = place.said("promotion", "list", "climber", *_STAGING)
    assert [each["adapter"] for each in listed] == ["climber-v2", "climber-v1"]
    table = place.run("promotion", "list", *_STAGING).stdout
    assert "climber-v2" in table
    shown = place.run("promotion", "show", shared["id"], *_STAGING).stdout
    for told in (second, "forced over gate: there is no time", "made for this test", "by local"):
        assert told in shown, told

    back = place.run("rollback", "climber", *_STAGING, "--reason", "it was worse")
    assert back.exit_code == 0, back.output
    assert f"climber in staging leads to adapter {first[:19]} again" in back.stdout
    assert place.said("route", "show", "climber", *_STAGING)["adapter_digest"] == first
    ended = place.said("promotion", "show", shared["id"], *_STAGING)
    assert (ended["state"], ended["ended_because"]) == ("rolled_back", "it was worse")
    place.said("rollback", "climber", *_STAGING)
    failed(place.run("route", "show", "climber", *_STAGING, "--json"), "not_found")
    for environment in ("dev", "staging"):
        if environment == "dev":
            place.said("route", "rm", "climber")
        for name in ("climber-v1", "climber-v2"):
            place.said("adapter", "rm", name, "--env", environment)


def test_what_cannot_be_promoted_is_told_in_a_sentence(place: Place) -> None:
    told = failed(place.run("promote", "nobody", "--to", "staging", "--json"), "not_found")
    assert "There is no route 'nobody' in dev" in told
    failed(place.run("promote", "nobody", "--to", "dev", "--json"), "conflict")
    failed(place.run("rollback", "nobody", "--json"), "not_found")
    failed(place.run("promotion", "show", "pro_x", "--json"), "not_found")
    assert place.run("promote", "nobody", "--to", "production").exit_code == 2
    assert place.run("promote", "nobody", "--to", "prod", "--share", "101").exit_code == 2
    assert "Nothing was promoted there" in place.run("promotion", "list", "nobody").stdout
