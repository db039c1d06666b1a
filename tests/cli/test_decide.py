"""`freehold decide`: the workload file, from questions, options, traces and what was used."""

import json
import os
import pty
import re
import sys
import time
from pathlib import Path
from subprocess import Popen

import httpx2
import pytest
from typer.testing import CliRunner

from freehold.cli.at_rest.opening import opened
from freehold.cli.main import app
from freehold.config.home import Home
from freehold.config.workload import read_workload
from tests.cli.conftest import Run
from tests.installation import Installation
from tests.store.making import used

FEW = ["--requests-per-day", "2k", "--prompt", "300", "--answer", "{p50: 100, p95: 900}"]


def run(*arguments: str) -> tuple[int, str, str]:
    found = CliRunner().invoke(app, ["decide", *arguments])
    return found.exit_code, found.stdout, found.stderr


def test_options_write_a_file_that_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    code, told, _ = run("init", str(file), *FEW, "--region", "de", "--peak", "office")
    assert code == 0
    assert "2,000 requests a day, 314 in the busiest hour" in told
    made = read_workload(file)
    assert (made.name, made.region, made.prompt.mean) == ("w", "de", 300)
    _, told, _ = run("check-file", str(file), "--json")
    assert json.loads(told)["requests_a_day"] == 2000
    _, told, _ = run("check-file", str(file))
    assert told.startswith("w: 2,000 requests a day")


def test_every_commented_line_can_be_uncommented(tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    run("init", str(file), *FEW)
    field = re.compile(r"^# (?=[a-z_]+: |  [a-z])", re.MULTILINE)
    text, count = field.subn("", file.read_text())
    assert count == 13
    file.write_text(text)
    made = read_workload(file)
    assert made.targets.ttft_ms == 2000
    assert made.rules.least_mmlu == 60
    assert made.tuning is not None
    assert made.embedding is not None


def test_a_file_is_never_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    file.write_text("mine")
    code, _, told = run("init", str(file), *FEW)
    assert (code, file.read_text()) == (1, "mine")
    assert "is there already: name another file, or move it away." in told


def test_nothing_is_written_for_what_cannot_be(tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    code, _, told = run("init", str(file), *FEW, "--region", "atlantis")
    assert (code, file.exists()) == (1, False)
    assert "--region: 'atlantis' is no region that is known here" in told
    code, told, _ = run("init", str(file), "--json")
    assert json.loads(told)["error"]["message"].startswith(
        "There is nobody to ask: say --requests-per-day, --prompt, --answer"
    )


def test_at_a_terminal_questions_are_asked_until_they_are_answered(tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    mine, theirs = pty.openpty()
    command = [sys.executable, "-m", "freehold.cli.main", "decide", "init", str(file)]
    with Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ) as process:
        os.close(theirs)
        told = b""
        for question, said in (
            (b"Requests a day", b"none"), (b"Requests a day", b"5k"), (b"of a prompt", b""),
            (b"of an answer", b"100"), (b"machines stand", b""), (b"is in it", b"personal"),
            (b"requests come", b"evening"),
        ):  # fmt: skip
            at = len(told)
            while question not in told[at:]:
                told += os.read(mine, 4096)
            while not told.rstrip(b" ").endswith(b":"):
                told += os.read(mine, 4096)
            os.write(mine, said + b"\n")
        assert process.wait(60) == 0
    os.close(mine)
    assert b"'none' is no quantity such as 1500 or 1.5k." in told
    made = read_workload(file)
    assert (made.requests_a_day, made.prompt.mean, made.answer.mean) == (5000, 500, 100)
    assert (made.region, made.rules.data_class) == (None, "personal")


def test_a_trace_teaches_the_file(tmp_path: Path) -> None:
    trace, file = tmp_path / "t.jsonl", tmp_path / "w.yaml"
    rows = [
        {"timestamp": 1_700_000_000 + n * 600, "prompt_tokens": 100 + n, "answer_tokens": 7}
        for n in range(2000)
    ]
    trace.write_text("\n".join(json.dumps(row) for row in rows))
    code, told, _ = run("init", str(file), "--trace", str(trace), "--region", "fr")
    assert code == 0
    assert "2,000 requests in 333." in told
    assert "less than a day" not in told
    made = read_workload(file)
    assert made.requests_a_day == pytest.approx(144, rel=0.01)
    assert made.answer.quantiles == (7,)
    assert made.prompt.mean == pytest.approx(1099.5, rel=0.01)
    assert made.region == "fr"
    code, _, told = run("init", str(file) + "2", "--trace", str(trace), "--from-usage", "3d")
    assert "--trace or --from-usage, and not both" in told


def test_what_all_tenants_used_teaches_the_file_and_names_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("FREEHOLD_HOME", str(home))
    now_us = time.time_ns() // 1000
    with opened(Home(home)) as (store, _, _):
        for number in range(40):
            tenant, adapter = ("ten_a", None) if number % 2 else ("ten_b", "sha256:x")
            used(
                store, f"r{number}", tenant, adapter_digest=adapter, tokens_in=100,
                endpoint="embeddings" if number >= 36 else "chat/completions",
                created_at_us=now_us - number * 3_600_000_000, tokens_out=9, tokens_cached=25,
            )  # fmt: skip
    file = tmp_path / "w.yaml"
    code, _, told = run("init", str(file), "--from-usage", "30d")
    assert code == 0, told
    workload = read_workload(file)
    assert workload.requests_a_day == pytest.approx(24, rel=0.05)
    assert (workload.prompt.quantiles, workload.answer.quantiles) == ((100,), (9,))
    assert (workload.cached_share, workload.tenants_with_adapters) == (0.25, 1)
    assert "ten_" not in file.read_text()
    assert "sha256" not in file.read_text()
    code, _, told = run("init", str(file) + "2", "--from-usage", "soon")
    assert "'soon' is no time such as 30d" in told


def test_a_running_gateway_tells_what_its_tenants_used(
    online: Run, served: Installation, tmp_path: Path
) -> None:
    for words in ("one", "two and more", "three"):
        body = {"model": "tiny", "prompt": words, "max_tokens": 5}
        answer = httpx2.post(
            f"{served.url}/v1/completions",
            json=body,
            headers={"authorization": f"Bearer {served.key}"},
        )
        assert answer.status_code == 200, answer.text
    file = tmp_path / "w.yaml"
    found = online("decide", "init", str(file), "--from-usage", "1d")
    assert found.exit_code == 0, found.output
    made = read_workload(file)
    assert len(made.answer.quantiles) >= 1
    assert made.requests_a_day > 3
    assert re.search(r"what was used in 1d: \d+ requests in", file.read_text())


def test_replicas_are_simulated_until_the_targets_are_met(offline: Run, tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    file.write_text(
        "requests_per_day: 20k\nprompt: 800\nanswer: 200\npeak: office\n"
        "targets: {ttft_p95: 1 s, tpot_p95: 45 ms}\n"
    )
    on = ["decide", "simulate", str(file), "--model", "llama-3.1-8b", "--on", "l4"]
    on += ["--precision", "fp8", "--json"]
    found = json.loads(offline(*on).stdout)
    assert found["replicas"] > 1
    assert found["missed"] == []
    assert found["ttft_s"]["p95"] <= 1
    fewer = json.loads(offline(*on, "--replicas", str(found["replicas"] - 1)).stdout)
    assert fewer["missed"]
    assert fewer["requests"] == found["requests"]
    shown = offline(*on[:-1], "--replicas", "1").stdout
    assert "1 replica under" in shown
    assert "Missed: TPOT at p95 is" in shown


def test_what_cannot_be_simulated_is_said(offline: Run, tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    file.write_text("requests_per_day: 2k\nprompt: 800\nanswer: 200\n")

    def told(*words: str) -> str:
        found = offline("decide", "simulate", str(file), *words)
        assert found.exit_code == 1
        return found.stderr

    assert "No model 'x' is in the facts" in told("--model", "x", "--on", "l4")
    assert "No accelerator 'x' is in" in told("--model", "llama-3.1-8b", "--on", "x")
    assert "cannot be served on 1 x t4" in told("--model", "llama-3.1-8b", "--on", "t4")
    file.write_text("requests_per_day: 2M\nprompt: 800\nanswer: 200\n")
    many = told("--model", "llama-3.1-8b", "--on", "l4", "--days", "30")
    assert "3,000,000 are simulated at most" in many
