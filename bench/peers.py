"""The gateways that are measured, each set up as its own documentation says, in front of
the same upstream. Started one at a time, so that none takes another's processor."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

LITELLM, PORTKEY = "1.92.2", "1.15.2"
FREEHOLD_PORT, LITELLM_PORT, PORTKEY_PORT, NGINX_PORT = 18080, 18081, 18082, 18090
_INSTALLED = Path(__file__).parent / ".peers"
_START_S = 180.0
_ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1700000000,
    "model": "bench",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello there, how may I help you today?"},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21},
}


@dataclass(frozen=True, slots=True)
class Peer:
    """A running gateway. `headers` are what its clients send with each request."""

    system: str
    version: str
    url: str
    pid: int
    headers: dict[str, str] = field(default_factory=dict)


def need(*programs: str) -> None:
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        sys.exit(f"This benchmark needs {', '.join(missing)}: apt install nginx wrk nodejs npm")


@contextlib.contextmanager
def nginx() -> Iterator[str]:
    """One static chat completion on every path; the base URL of it."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "nginx.conf"
        config.write_text(
            f"worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error;\n"
            "events { worker_connections 4096; }\n"
            "http { access_log off; keepalive_requests 100000000;\n"
            f"client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;\n"
            f"fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u;\n"
            f"scgi_temp_path {folder}/s;\n"
            f"server {{ listen 127.0.0.1:{NGINX_PORT}; location / {{\n"
            f"default_type application/json; return 200 '{json.dumps(_ANSWER)}'; }} }} }}\n"
        )
        command = ["nginx", "-c", str(config), "-e", f"{folder}/error"]
        with _process("nginx", command, dict(os.environ), Path(folder)):
            _wait(f"http://127.0.0.1:{NGINX_PORT}/", {})
            yield f"http://127.0.0.1:{NGINX_PORT}/v1"


@contextlib.contextmanager
def freehold(upstream: str) -> Iterator[Peer]:
    """With everything on that is on by default: keys, rights, the durable ledger."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "freehold.yaml").write_text(
            f"upstreams:\n  - name: bench\n    base_url: {upstream}\n"
            "    models: [{alias: bench, upstream_name: bench}]\n"
        )
        program = str(Path(sys.executable).parent / "freehold")
        command = [program, "up", "--port", str(FREEHOLD_PORT), "--no-local-models"]
        url = f"http://127.0.0.1:{FREEHOLD_PORT}"
        with _process("freehold", command, {**os.environ, "FREEHOLD_HOME": folder}, home) as pid:
            _wait(f"{url}/readyz", {})
            key = (home / "admin.key").read_text().strip()
            yield Peer("freehold", version("freehold"), url, pid, _bearer(key))


@contextlib.contextmanager
def litellm(upstream: str) -> Iterator[Peer]:
    """The proxy with a master key and one worker, without a database: it records
    nothing durably, so it is given less to do than Freehold."""
    venv = _INSTALLED / "litellm"
    if not (venv / "bin" / "litellm").exists():
        print(f"Installing LiteLLM {LITELLM} ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run(
            [venv / "bin" / "pip", "install", "-q", f"litellm[proxy]=={LITELLM}"], check=True
        )
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(
            "model_list:\n  - model_name: bench\n    litellm_params:\n"
            f"      {{model: openai/bench, api_base: '{upstream}', api_key: sk-none}}\n"
            "general_settings: {master_key: sk-bench}\n"
        )
        command = [
            str(venv / "bin" / "litellm"), "--config", str(config), "--host", "127.0.0.1",
            "--port", str(LITELLM_PORT), "--num_workers", "1",
        ]  # fmt: skip
        url = f"http://127.0.0.1:{LITELLM_PORT}"
        environment = {**os.environ, "LITELLM_LOG": "ERROR"}
        with _process("litellm", command, environment, Path(folder)) as pid:
            _wait(f"{url}/health/liveliness", {})
            yield Peer("litellm", LITELLM, url, pid, _bearer("sk-bench"))


@contextlib.contextmanager
def portkey(upstream: str) -> Iterator[Peer]:
    """The open-source gateway. It passes keys on, checks none and records nothing."""
    folder = _INSTALLED / "portkey"
    package = folder / "node_modules" / "@portkey-ai" / "gateway"
    if not package.exists():
        print(f"Installing Portkey {PORTKEY} ...", file=sys.stderr)
        folder.mkdir(parents=True, exist_ok=True)
        # With newer ones every stream fails (Portkey-AI/gateway#1389).
        older = {"@hono/node-server": "1.13.8", "hono": "4.9.7"}
        wanted = {"dependencies": {"@portkey-ai/gateway": PORTKEY}, "overrides": older}
        (folder / "package.json").write_text(json.dumps(wanted))
        subprocess.run(["npm", "install", "--silent", "--prefix", folder], check=True)
    script = str(package / "build" / "start-server.js")
    command = ["node", script, "--headless", f"--port={PORTKEY_PORT}"]
    url = f"http://127.0.0.1:{PORTKEY_PORT}"
    environment = {**os.environ, "NODE_ENV": "production"}
    with (
        tempfile.TemporaryDirectory() as folder,
        _process("portkey", command, environment, Path(folder)) as pid,
    ):
        _wait(url, {})
        headers = _bearer("sk-none") | {
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": upstream,
        }
        yield Peer("portkey", PORTKEY, url, pid, headers)


EVERY: tuple[Callable[[str], contextlib.AbstractContextManager[Peer]], ...] = (
    freehold,
    litellm,
    portkey,
)


def _bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@contextlib.contextmanager
def _process(
    name: str, command: list[str], environment: dict[str, str], folder: Path
) -> Iterator[int]:
    log = folder / f"{name}.log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            command, env=environment, stdout=said, stderr=said, start_new_session=True
        )
    try:
        yield process.pid
    except SystemExit:
        print(log.read_text()[-2000:], file=sys.stderr)
        raise
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(url: str, headers: dict[str, str]) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5):
                return
        except urllib.error.HTTPError:
            return  # it answers
        except OSError:
            time.sleep(0.2)
    sys.exit(f"{url} did not answer within {_START_S:.0f} seconds")
