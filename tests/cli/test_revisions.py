"""`freehold promotion export` and `freehold promote --file`: from one home to another."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from freehold.catalog.store import ModelStore
from freehold.cli.at_rest import opening
from freehold.config.home import Home
from freehold.core.ids import new_id
from freehold.core.manifest import MANIFEST
from tests.catalog.making import peft_folder
from tests.cli.conftest import Run
from tests.cli.spoken import failed
from tests.cli.test_adapter import Place, resting
from tests.installation import Installation
from tests.store.making import a_gate

# A process that is killed where its revision would be let in.
_KILLED = """
import os, signal
from freehold.cli.main import main
from freehold.store.sql import SqlStore
SqlStore.promote = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
main()
"""


@dataclass
class Both:
    dev: Place
    prod: Place
    folder: Path

    def led(self, name: str, seed: int) -> str:
        """An adapter that passed its gate, which the alias `support` leads to."""
        base = ModelStore(self.dev.home).get("tiny")
        folder = peft_folder(self.folder / name, seed)
        licences = {"base": "Apache-2.0", "dataset": "LicenseRef-own"}
        (folder / MANIFEST).write_text(
            json.dumps({"base_digest": base.digest, "licences": licences})
        )
        added = self.dev.said("adapter", "add", str(folder), "--base", "tiny", "--name", name)
        self.dev.said("route", "set", "support", "--base", "tiny", "--adapter", name)
        with opening.opened(Home(self.dev.home)) as (store, _, tenant):
            gate = a_gate(
                new_id("gat"), tenant, base_digest=base.digest, adapter_digest=added["digest"],
                made_at_us=time.time_ns() // 1000,
            )  # fmt: skip
            store.add_gate(tenant, gate)
        return str(added["digest"])

    def trust(self) -> None:
        (key,) = self.dev.said("adapter", "keys")
        pem = self.folder / "dev.pem"
        pem.write_text(key["public"])
        settings = {"engines": {"default": "fake"}, "supply": {"trusted_installations": [str(pem)]}}
        (self.prod.home / "freehold.yaml").write_text(json.dumps(settings))

    def export(self, name: str) -> Path:
        file = self.folder / name
        self.dev.said("promotion", "export", "support", "--out", str(file))
        return file


@pytest.fixture
def both(tmp_path: Path, commands: Callable[[Path], Run]) -> Both:
    return Both(resting(tmp_path / "dev", commands), resting(tmp_path / "prod", commands), tmp_path)


def test_a_revision_goes_from_one_home_to_another(both: Both) -> None:
    first = both.led("v1", 1)
    file = both.folder / "v1.fhr"
    ended = both.dev.run("promotion", "export", "support", "--out", str(file))
    assert ended.exit_code == 0, ended.output
    assert "v1 on tiny with gat_" in ended.stdout
    assert file.stat().st_mode & 0o777 == 0o600
    words = ("promote", "support", "--to", "staging", "--file", str(file))
    told = failed(both.prod.run(*words, "--json"), "file_refused")
    assert "not one of an installation that is trusted here (supply.trusted_installations)" in told
    both.trust()
    done = both.prod.run(*words)
    assert done.exit_code == 0, done.output
    assert "support in staging leads to v1, from dev of dev.pem (key " in done.stdout
    assert both.prod.said("route", "show", "support", "--env", "staging")["adapter_digest"] == first
    shown = both.prod.run("lineage", "support", "--env", "staging").stdout
    assert "in staging of dev.pem (key " in shown
    (gate,) = both.prod.said("gate", "list", "--env", "staging", "--adapter", first)
    assert both.prod.said("gate", "show", gate["id"], "--env", "staging") == gate
    told = both.prod.run("gate", "show", gate["id"], "--env", "staging").stdout
    assert "dev.pem (key " in told
    assert both.prod.said("gate", "list") == []
    failed(both.prod.run("gate", "show", gate["id"], "--json"), "not_found")
    assert "to staging from dev of dev.pem" in shown

    both.led("v2", 2)
    second = both.export("v2.fhr")
    words = ("promote", "support", "--to", "staging", "--file", str(second))
    shared = both.prod.said(*words, "--share", "10")
    assert shared["state"] == "sharing"
    whole = both.prod.said("promote", "support", "--to", "staging", "--share", "100")
    assert (whole["id"], whole["state"]) == (shared["id"], "whole")
    listed = both.prod.said("promotion", "list", "support", "--env", "staging")
    assert [each["adapter"] for each in listed] == ["v2", "v1"]
    both.prod.said("rollback", "support", "--env", "staging")
    assert both.prod.said("route", "show", "support", "--env", "staging")["adapter_digest"] == first


def test_a_file_is_whole_or_not_there_and_never_over_another(both: Both) -> None:
    both.led("v1", 1)
    file = both.export("v1.fhr")
    export = ("promotion", "export", "support", "--out")
    failed(both.dev.run(*export, str(file), "--json"), "conflict")
    failed(both.dev.run(*export, str(both.folder / "no" / "x.fhr"), "--json"), "invalid_value")
    failed(both.dev.run("promotion", "export", "nobody", "--out",
                        str(both.folder / "n.fhr"), "--json"), "not_found")  # fmt: skip
    assert not (both.folder / "n.fhr").exists()
    staged = both.dev.home / "cache" / "adapters"
    assert not list(staged.iterdir()), "nothing stays behind"
    words = ("promote", "support", "--to", "staging", "--file")
    for other, code in ((both.folder / "absent.fhr", "source_not_found"),
                        (both.folder / "dev.db", "file_invalid")):  # fmt: skip
        if "db" in other.name:
            other.write_bytes(b"SQLite format 3" * 99)
        failed(both.prod.run(*words, str(other), "--json"), code)
    failed(both.prod.run(*words, str(file), "--from", "dev", "--json"), "invalid_value")


def test_a_command_that_is_killed_in_the_middle_leaves_nothing_that_serves(both: Both) -> None:
    digest = both.led("v1", 1)
    file = both.export("v1.fhr")
    both.trust()
    words = ["promote", "support", "--to", "staging", "--file", str(file)]
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, *words],
        env={**os.environ, "FREEHOLD_HOME": str(both.prod.home)},
        check=False,
        timeout=120,
    )
    assert killed.returncode == -9
    staging = ("--env", "staging")
    failed(both.prod.run("route", "show", "support", *staging, "--json"), "not_found")
    assert both.prod.said("promotion", "list", *staging) == []
    (left,) = both.prod.said("adapter", "list", *staging)
    assert left["digest"] == digest, "stored, and led to by nothing"
    done: Any = both.prod.said(*words)
    assert (done["adapter"], done["state"]) == ("v1", "whole")
    assert len(both.prod.said("adapter", "list", *staging)) == 1


def test_a_running_gateway_takes_a_file_from_this_home_and_trusts_nobody_unasked(
    both: Both, served: Installation, commands: Callable[[Path], Run]
) -> None:
    both.led("v1", 1)
    file = both.export("v1.fhr")
    place = Place(commands(served.home), served.home)
    told = failed(
        place.run("promote", "support", "--to", "staging", "--file", str(file), "--json"),
        "file_refused",
    )
    assert "The revision's signature is not accepted" in told
    failed(place.run("promotion", "export", "nobody", "--out",
                     str(both.folder / "x.fhr"), "--json"), "not_found")  # fmt: skip
    staged = served.home / "cache" / "adapters"
    assert not staged.exists() or not list(staged.iterdir())
