"""`freehold up --json`: one object for machines once it serves, the rest beside it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import freehold
from freehold.cli.reaching import reach
from freehold.config.home import Home
from tests.installation import start, stock_tiny
from tests.newer import REVISION, newer


def test_a_gateway_tells_machines_where_it_serves_and_what(tmp_path: Path) -> None:
    stock_tiny(tmp_path)
    command = [sys.executable, "-m", "freehold.cli.main", "up", "--json", "--port", "0",
               "--engine", "fake", "--model", "tiny"]  # fmt: skip
    environment = {**os.environ, "FREEHOLD_HOME": str(tmp_path)}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if line == "}\n":
            break
    told: Any = json.loads("".join(lines))
    process.terminate()
    rest, beside = process.communicate(timeout=30)

    assert told["url"].startswith("http://127.0.0.1:")
    assert told["admin_key"] == (tmp_path / "admin.key").read_text().strip()
    (model,) = told["models"]
    assert (model["name"], model["engine"]) == ("tiny", "fake")
    assert model["digest"].startswith("sha256:")
    assert model["tokens_per_s"] > 0
    assert told["newer_schema"] is None
    assert rest == "", "nothing but the object is where machines read"
    assert "Stopped." in beside
    assert process.returncode == 0


def test_a_gateway_goes_back_to_the_version_before_and_says_so(tmp_path: Path) -> None:
    home = tmp_path / "home"
    stock_tiny(home)
    with newer(tmp_path), reach.offline(Home(home)):
        pass
    gateway = start(home, "--engine", "fake", "--model", "tiny")
    assert f"was made by a newer Freehold (schema {REVISION})" in gateway.printed
    assert json.loads(gateway.run("tenant", "list", "--json").stdout)
    gateway.stop()


def test_the_version_is_told_to_machines_too() -> None:
    command = [sys.executable, "-m", "freehold.cli.main", "version", "--json"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert json.loads(told) == {"version": freehold.__version__}
