"""What an engine process does first: it gives up what it does not need."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from freehold.engines import child

_SETTLE = """
import json, os, resource, sys, threading
from freehold.engines import child
child.settle_in()
is_linux = sys.platform == "linux"
lines = open("/proc/self/status").read().splitlines() if is_linux else ["NoNewPrivs:\\t1"]
made = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY, 0o666)
print(json.dumps({
    "core": resource.getrlimit(resource.RLIMIT_CORE),
    "no_new_privileges": "NoNewPrivs:\\t1" in lines,
    "mode": os.fstat(made).st_mode & 0o777,
    "environment": dict(os.environ),
}), flush=True)
threading.Event().wait()
"""


def test_only_harmless_variables_are_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "HF_TOKEN", "FREEHOLD_API_KEY", "AWS_SECRET_ACCESS_KEY",
                 "PYTHONPATH", "PYTHONSTARTUP", "LD_PRELOAD", "HTTPS_PROXY", "LLAMA_ARG_HOST",
                 "CANARY"):  # fmt: skip
        monkeypatch.setenv(name, "canary-4711")
    environment = child.clean_environment()
    assert "canary-4711" not in environment.values()
    assert environment["PATH"] == os.environ["PATH"]
    monkeypatch.delenv("PATH")
    assert "PATH" not in child.clean_environment()


@pytest.fixture
def settled(tmp_path: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", _SETTLE, str(tmp_path / "made")],
        env=child.clean_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (4096, 4096)),
    )  # fmt: skip


def test_it_leaves_no_core_dumps_takes_no_privileges_and_writes_for_its_owner(
    settled: "subprocess.Popen[bytes]",
) -> None:
    assert settled.stdout is not None
    told = json.loads(settled.stdout.readline())
    settled.kill()
    settled.communicate()
    assert told["core"] == [0, 0]
    assert told["no_new_privileges"] is True
    assert told["mode"] == 0o600


def test_it_ends_when_nobody_holds_its_standard_input(
    settled: "subprocess.Popen[bytes]",
) -> None:
    assert settled.stdout is not None
    assert settled.stdin is not None
    assert settled.stdout.readline()
    settled.stdin.write(b"words are no reason to end")
    settled.stdin.flush()
    assert psutil.Process(settled.pid).is_running()
    settled.stdin.close()
    settled.stdin = None
    assert settled.wait(20) == 0
    settled.communicate()
