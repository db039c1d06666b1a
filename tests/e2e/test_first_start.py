"""What a person sees who starts Freehold for the first time, and what later starts do."""

import json
import os
import socket
import stat
import subprocess
from pathlib import Path

import httpx2
import psutil
from typer.testing import CliRunner

from freehold.cli.main import app
from tests.installation import Installation, share, start

MODEL = "smollm2-135m-instruct"


def test_the_first_start_says_everything_one_needs(installation: Installation) -> None:
    printed = installation.printed
    for expected in (
        MODEL,
        "Apache-2.0",
        "sha256:",
        "openvino",
        "tokens/s",
        "smoke model",
        "freehold model pull",
        "curl ",
        str(installation.home / "admin.key"),
    ):
        assert expected in printed
    assert printed.count(installation.key) == 1
    assert stat.S_IMODE((installation.home / "admin.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(installation.home.stat().st_mode) == 0o700


def test_the_printed_curl_line_works(installation: Installation) -> None:
    line = next(line for line in installation.printed.splitlines() if "curl " in line)
    ended = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, timeout=300, check=True
    )
    assert json.loads(ended.stdout)["choices"][0]["message"]["content"]


def test_the_format_was_measured_and_the_choice_is_on_the_card(
    installation: Installation,
) -> None:
    card = json.loads(installation.run("model", "show", MODEL, "--json").stdout)
    if card["conversion"] is None:  # then it must say why
        assert "too busy to measure formats: serving it as fetched" in installation.printed
        assert card["quantization"] == "Q4_1"
        return
    trials = card["conversion"]["trials"]
    chosen = [trial for trial in trials if trial["chosen"]]
    assert len(chosen) == 1
    assert chosen[0]["mean_kl_nats"] <= card["conversion"]["quality_bound_kl_nats"]
    assert {trial["quantization"] for trial in trials} >= {"Q4_0", "Q8_0"}
    assert all(trial["decode_tokens_per_s"] > 0 for trial in trials)
    assert card["quantization"] == chosen[0]["quantization"]


def test_commands_speak_to_people_and_to_machines(installation: Installation) -> None:
    run = installation.run
    status = json.loads(run("status", "--json").stdout)
    assert status["pools"][0]["replicas"][0]["state"] == "ready"
    assert MODEL in run("status").stdout
    said = json.loads(run("chat", "Say hi", "--max-tokens", "8", "--json").stdout)
    assert said["content"]
    assert 0 < said["usage"]["completion_tokens"] <= 8
    created = json.loads(run("key", "create", "a test", "--json").stdout)
    assert created["key"].startswith("fh_dev_")
    listed = run("key", "list", "--json").stdout
    assert created["id"] in listed
    assert created["key"] not in listed
    assert json.loads(run("key", "revoke", created["id"], "--json").stdout)["state"] == "revoked"
    assert any(row["tokens_out"] for row in json.loads(run("usage", "--json").stdout))
    assert "Sound" in run("model", "verify").stdout
    assert "Usage" in run("--help").stdout
    for command in ("up", "down", "status", "chat", "usage", "model", "key"):
        assert "Usage" in CliRunner().invoke(app, [command, "--help"]).stdout


def test_wrong_use_is_told_in_a_sentence(installation: Installation) -> None:
    run = installation.run
    assert run("nonsense").returncode == 2
    for arguments in (
        ("model", "show", "nobody"),
        ("model", "pull", "gopher:x"),
        ("model", "pull", "file:/does/not/exist"),
        ("key", "revoke", "key_nobody"),
        ("chat", "hi", "--model", "nobody"),
    ):
        ended = run(*arguments)
        assert ended.returncode == 1, arguments
        assert "Error:" in ended.stderr
        assert "Traceback" not in ended.stdout + ended.stderr


def test_a_second_gateway_on_the_same_home_is_refused(installation: Installation) -> None:
    ended = installation.run("up", "--port", "0")
    assert ended.returncode == 1
    assert "Another Freehold process uses" in ended.stderr


def test_a_port_in_use_is_told_before_anything_is_loaded(
    installation: Installation, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        environment = {**installation.environment, "FREEHOLD_HOME": str(tmp_path)}
        ended = subprocess.run(
            [*_freehold(), "up", "--port", port],
            env=environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert ended.returncode == 1
    assert f"Cannot listen on 127.0.0.1:{port}" in ended.stderr


def test_a_bind_beyond_loopback_without_tls_is_refused(
    installation: Installation, tmp_path: Path
) -> None:
    environment = {**installation.environment, "FREEHOLD_HOME": str(tmp_path), "HOST": "0.0.0.0"}  # noqa: S104
    ended = subprocess.run(
        [*_freehold(), "up", "--port", "0"],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert "in the clear" in ended.stderr


def test_engines_get_no_secrets_and_open_no_port(installation: Installation) -> None:
    engines = psutil.Process(installation.process.pid).children()
    assert engines
    for engine in engines:
        environment = Path(f"/proc/{engine.pid}/environ").read_bytes()
        assert b"do-not-inherit" not in environment
        assert not engine.net_connections(kind="inet")


def test_the_openapi_document_covers_every_route(installation: Installation) -> None:
    from starlette.routing import Route

    from freehold.serve import app as door
    from freehold.serve.openapi.document import build

    document = build()
    paths = {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    }
    served = set(door.OPEN)
    for operation in door.operations(_Nothing()):  # type: ignore[arg-type]
        served.add((operation.method, operation.path.replace(":path", "")))
    assert paths == served
    assert Route


class _Nothing:
    """Stands for a gateway where only the table of operations is wanted."""


def test_later_starts_keep_the_key_and_ctrl_c_leaves_nothing_running(
    tmp_path: Path, stored: Path
) -> None:
    share(stored, tmp_path)
    first = start(tmp_path, "--engine", "fake")
    key = first.key
    children = psutil.Process(first.process.pid).children(recursive=True)
    assert "Stopped." in first.stop()
    assert first.process.returncode == 0
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive
    second = start(tmp_path, "--engine", "fake")
    assert second.key == key
    assert "shown this once" not in second.printed
    answer = httpx2.get(
        f"{second.url}/v1/models", headers={"authorization": f"Bearer {key}"}, verify=False
    )
    assert answer.status_code == 200
    assert second.run("down").returncode == 0
    assert not os.path.exists(tmp_path / "run" / "gateway.json")
    second.process.communicate(timeout=60)


def _freehold() -> list[str]:
    import sys

    return [sys.executable, "-m", "freehold.cli.main"]
