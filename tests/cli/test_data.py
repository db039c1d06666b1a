"""`freehold data`, on a running gateway and on a resting home: the same words, the same
checks."""

import json
import resource
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from freehold.config.home import Home
from tests.adapt import tickets
from tests.adapt.dataset.conftest import chat
from tests.cli.conftest import Run
from tests.cli.spoken import failed
from tests.installation import Installation, start, stock_tiny

_SAID = ("--licence", "LicenseRef-own", "--origin", "help desk")


@dataclass
class Place:
    run: Run
    home: Path

    def said(self, *words: str) -> Any:
        ended = self.run("data", *words, "--json")
        assert ended.exit_code == 0, ended.output
        return json.loads(ended.stdout)


@pytest.fixture(params=["online", "offline"])
def place(request: pytest.FixtureRequest, tmp_path: Path, commands: Callable[[Path], Run]) -> Place:
    if request.param == "online":
        served: Installation = request.getfixturevalue("served")
        return Place(commands(served.home), served.home)
    home = tmp_path / "home"
    home.mkdir()
    stock_tiny(home)
    return Place(commands(home), home)


@pytest.fixture
def file(tmp_path: Path) -> str:
    return str(tickets.write(tmp_path / "tickets.jsonl", 80))


def test_data_are_added_listed_shown_and_removed(place: Place, file: str) -> None:
    added = place.said("add", file, "--name", "tickets", *_SAID)
    assert (added["name"], added["environment"], added["version"]) == ("tickets", "dev", 1)
    assert added["train"] + added["held_out"] == added["report"]["read"] == 80
    (listed,) = place.said("list")
    assert listed == {name: value for name, value in added.items() if name != "report"}
    assert place.said("show", "tickets@1") == added
    assert place.said("list", "--env", "prod") == []
    shown = place.run("data", "show", "tickets")
    assert "80 chat examples: " in shown.stdout
    assert "billing 10" in shown.stdout
    removed = place.said("rm", "tickets")
    assert removed == {"removed": "tickets@1", "digest": added["digest"]}
    assert place.said("list") == []
    assert "There is no dataset 'tickets' in dev" in failed(
        place.run("data", "show", "tickets", "--json"), "not_found"
    )
    assert not list((place.home / "data").rglob("*.jsonl"))
    assert list((place.home / "cache" / "datasets").iterdir()) == []


def test_a_secret_keeps_data_out_until_it_is_accepted_or_taken_out(
    place: Place, tmp_path: Path
) -> None:
    path, secret = tmp_path / "x.jsonl", "ghp_" + "q7R8" * 9
    examples = [*tickets.examples(20), chat(f"My key is {secret}", "account")]
    path.write_text("".join(json.dumps(each) + "\n" for each in examples))
    words = ("data", "add", str(path), "--name", "keys", *_SAID)
    assert "hold api key × 1 (example 21): take that out" in failed(
        place.run(*words, "--json"), "file_refused"
    )
    accepted = place.run(*words, "--accept-findings", "It was revoked.")
    assert "Accepted: api key × 1" in accepted.stdout
    assert secret not in accepted.output
    redacted = place.said("add", str(path), "--name", "keys", *_SAID, "--redact")
    assert (redacted["version"], redacted["accepted_findings"]) == (2, None)
    for version in ("keys@2", "keys@1"):
        place.said("rm", version)


def test_words_are_refused_before_the_file_is_read(place: Place) -> None:
    refused = place.run("data", "add", "nowhere", "--name", "a b", *_SAID, "--json")
    assert "'a b' cannot be a dataset's name" in failed(refused, "invalid_value")


def test_a_home_that_another_process_uses_is_refused_before_the_file_is_read(
    offline: Run, tmp_path: Path
) -> None:
    home = Home(tmp_path / "home")
    with home.lock():
        refused = offline("data", "add", "nowhere", "--name", "a", *_SAID, "--json")
    assert "Another Freehold process uses" in failed(refused, "home_in_use")
    assert list((home.path / "cache" / "datasets").iterdir()) == []


@pytest.fixture
def fill(tmp_path: Path) -> Iterator[Callable[[int], None]]:
    """Leaves so many bytes on the disk below `home`, below 0 all. Who may not mount a small one
    has the sizes of files bounded instead, which the system tells likewise."""
    home = tmp_path / "home"
    home.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "tmpfs", str(home)]
    is_mounted = not subprocess.run(mount, capture_output=True, check=False).returncode
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(left: int) -> None:
        (home / "filler").unlink(missing_ok=True)
        if not is_mounted:
            resource.setrlimit(resource.RLIMIT_FSIZE, (left if left >= 0 else soft, hard))
        elif left >= 0:
            taken = shutil.disk_usage(home).free - left
            (home / "filler").write_bytes(bytes(taken))

    yield fill
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    if is_mounted:
        subprocess.run(["umount", str(home)], check=True)


@pytest.mark.parametrize("is_served", [False, True])
def test_on_a_full_disk_data_are_added_whole_or_not_at_all(
    fill: Callable[[int], None],
    tmp_path: Path,
    commands: Callable[[Path], Run],
    file: str,
    is_served: bool,
) -> None:
    home = tmp_path / "home"
    stock_tiny(home)
    place = Place(commands(home), home)
    place.said("add", file, "--name", "before", *_SAID)
    served = start(home, "--engine", "fake", "--model", "tiny") if is_served else None
    told = Counter[str]()
    try:
        for left in range(0, 200_000, 12_000):
            before = {path for path in (home / "data").rglob("*") if path.is_file()}
            fill(left)
            words = ("--name", "more", "--seed", str(left), *_SAID, "--json")
            ended = place.run("data", "add", file, *words)
            fill(-1)
            names = [each["name"] for each in place.said("list")]
            if ended.exit_code:
                told[json.loads(ended.stdout)["error"]["code"]] += 1
                assert names == ["before"], left
                assert {p for p in (home / "data").rglob("*") if p.is_file()} == before
            else:
                told["added"] += 1
                place.said("rm", "more")
            assert list((home / "cache" / "datasets").iterdir()) == []
    finally:
        if served is not None:
            served.stop()
    assert set(told) <= {"disk_full", "storage_unavailable", "audit_unavailable", "added"}, told
    assert told["disk_full"] > 0
    assert told["added"] > 0
    assert not (home / "logs" / "crash.txt").exists()


def test_a_file_is_checked_and_nothing_is_kept(offline: Run, file: str, tmp_path: Path) -> None:
    checked = offline("data", "check", file, "--json")
    assert json.loads(checked.stdout)["labels"]["classes"]["billing"] == 10
    assert not (tmp_path / "home" / "data").exists()
    nothing = offline("data", "check", str(tmp_path / "none.jsonl"), "--json")
    assert "none.jsonl does not exist: name a file of examples" in failed(
        nothing, "source_not_found"
    )
    for words, said in ((("--format", "xml"), "one of auto"), (("--held-out", "2"), "0 to 0.5")):
        assert said in failed(offline("data", "check", file, *words, "--json"), "invalid_value")


def test_lengths_are_counted_in_tokens_of_a_stored_base(
    tmp_path: Path, commands: Callable[[Path], Run], file: str
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    stock_tiny(home)
    ended = commands(home)("data", "check", file, "--base", "tiny", "--json")
    assert ended.exit_code == 0, ended.output
    lengths = json.loads(ended.stdout)["lengths"]
    assert lengths["unit"] == "tokens"
    assert lengths["context"] > 0
    assert lengths["total"] > 0


def test_the_settings_say_how_large_a_file_may_be(offline: Run, file: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "freehold.yaml").write_text("data: {max_examples: 50}\n")
    assert "`data.max_examples` (50)" in failed(
        offline("data", "check", file, "--json"), "request_too_large"
    )


def test_a_tenants_data_go_with_it(place: Place, file: str) -> None:
    assert place.run("tenant", "create", "passing-co").exit_code == 0
    place.said("add", file, "--name", "theirs", *_SAID, "--tenant", "passing-co")
    assert "1 dataset" in failed(place.run("tenant", "rm", "passing-co", "--json"), "conflict")
    assert place.run("tenant", "rm", "passing-co", "--force").exit_code == 0
    assert not list((place.home / "data").rglob("*.jsonl"))
