"""What an engine's process promises: its weights, its silence, its end."""

import asyncio
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest

from freehold.core.engine import CHAT, LaunchSpec
from freehold.core.errors import Code, UserError
from freehold.core.ids import digest_of_files
from freehold.deploy.replica import Replica
from freehold.engines.base import Answer, EngineClient, LocalModel
from tests.contract import parent
from tests.contract.effects import BASE
from tests.contract.entry import Entry, LocalEntry, Place, Promise, Running, until_it_answers

pytestmark = pytest.mark.asyncio(loop_scope="session")
_PATIENCE_S = 60
_HARMLESS = {
    "PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "HOME", "TMPDIR", "LD_LIBRARY_PATH",
    "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE",
}  # fmt: skip


async def test_the_identity_is_the_digest_of_the_file_that_was_loaded(
    entry: Entry, running: Running
) -> None:
    identity = await running.client.identity()
    if Promise.IDENTITY in entry.cannot:
        assert identity is None
        return
    assert running.loaded is not None
    expected = running.loaded.card.digest
    if Promise.READS_FILE not in entry.cannot:
        expected = _digest(running.loaded)
    assert identity == expected


def _digest(model: LocalModel) -> str:
    """Of the files themselves, several of which lie in one folder, each under its own."""
    if len(model.card.files) == 1:
        return _sha256(model.path)
    paths = {f.name: model.path.parent / f.digest.removeprefix("sha256:") for f in model.card.files}
    return digest_of_files({name: _sha256(path) for name, path in paths.items()})


def _sha256(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


async def test_other_weights_than_the_card_says_never_serve(entry: Entry, place: Place) -> None:
    if not isinstance(entry, LocalEntry):
        assert Promise.IDENTITY in entry.cannot
        return
    replica = Replica("impostor", *entry.impostor(place), place.folder)
    replica.start()
    async with asyncio.timeout(_PATIENCE_S):
        while replica.restarts == 0:
            assert not replica.is_ready
            await asyncio.sleep(0)
    assert replica.last_error in (
        "it loaded other weights than it should", "it ended while it started",
    )  # fmt: skip
    with pytest.raises(UserError) as caught:
        await replica.ensure_ready(0.2)
    assert caught.value.code is Code.ENGINE_UNAVAILABLE
    await replica.stop()


async def test_the_process_holds_no_secrets_and_no_port(
    entry: Entry, place: Place, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    if Promise.PROCESS in entry.cannot:
        assert not isinstance(entry, LocalEntry)
        return
    monkeypatch.setenv("CANARY_SECRET", "do-not-inherit")
    async with entry.expendable(place) as one:
        await one.ask(CHAT, **BASE[CHAT], max_tokens=1)
        environment = one.process.environ()
        assert set(environment) <= _HARMLESS
        assert "do-not-inherit" not in environment.values()
        for process in (one.process, *one.process.children(recursive=True)):
            assert not process.net_connections(kind="inet")


@asynccontextmanager
async def _alone(
    entry: LocalEntry, place: Place, command: str, socket: str
) -> AsyncIterator[tuple["subprocess.Popen[bytes]", LaunchSpec]]:
    """The engine, started by hand or by a parent of its own, once it serves."""
    engine, model = entry.engine(place.cache), entry.model(place)
    spec = engine.launch(model, socket)
    told = json.dumps({**asdict(spec), "argv": list(spec.argv), "env": dict(spec.env)})
    argv = (
        spec.argv
        if command == "engine"
        else (sys.executable, parent.__file__, told, str(place.folder / "parent.log"))
    )
    started = subprocess.Popen(  # noqa: ASYNC220 - a handle that outlives the loop
        argv,
        env=dict(spec.env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    client: EngineClient = engine.connect(model, socket)
    try:
        async with asyncio.timeout(entry.start_s):
            await until_it_answers(client.identity, lambda: started.poll() is not None)
        yield started, spec
    finally:
        await client.close()
        started.kill()
        started.communicate()


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A short path, as gateways choose it: those of sockets have an end."""
    with tempfile.TemporaryDirectory(prefix="freehold-") as folder:
        yield Path(folder)


async def test_it_dies_with_its_parent(entry: Entry, place: Place, sockets: Path) -> None:
    if not isinstance(entry, LocalEntry):
        assert Promise.PROCESS in entry.cannot
        return
    async with _alone(entry, place, "parent", str(sockets / "e.sock")) as (gateway, _):
        assert gateway.stdout is not None
        engine = psutil.Process(int(gateway.stdout.readline()))
        gateway.kill()
        _, alive = psutil.wait_procs([engine], timeout=_PATIENCE_S)
        assert not alive


async def test_it_ends_when_its_standard_input_closes(
    entry: Entry, place: Place, sockets: Path
) -> None:
    if not isinstance(entry, LocalEntry):
        assert Promise.PROCESS in entry.cannot
        return
    async with _alone(entry, place, "engine", str(sockets / "e.sock")) as (engine, _):
        assert engine.stdin is not None
        engine.stdin.close()
        engine.stdin = None
        assert engine.wait(_PATIENCE_S) == 0


async def test_an_engine_that_dies_in_an_answer_fails_it_and_is_then_not_there(
    expendable: Running,
) -> None:
    async with expendable.client.stream(expendable.call(CHAT, expendable.endless)) as answer:
        assert await answer.read()
        expendable.process.kill()
        with pytest.raises(UserError) as caught:
            await _to_its_end(answer)
    assert caught.value.code is Code.ENGINE_FAILED
    async with asyncio.timeout(_PATIENCE_S):
        while expendable.process.is_running():  # it closes one socket after the other
            await asyncio.sleep(0.01)
    with pytest.raises(UserError) as caught:
        await expendable.ask(CHAT, **BASE[CHAT])
    assert caught.value.code is Code.ENGINE_UNAVAILABLE


async def _to_its_end(answer: Answer) -> None:
    while await answer.read() is not None:
        pass


async def test_an_engine_that_hangs_fails_its_probe_and_what_waits_when_it_dies(
    entry: Entry, expendable: Running
) -> None:
    expendable.process.suspend()
    waiting = asyncio.create_task(expendable.ask(CHAT, **BASE[CHAT]))
    if Promise.PROBE in entry.cannot:
        await expendable.client.probe()
        await asyncio.sleep(0.3)
    else:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await expendable.client.probe()
    assert not waiting.done()
    expendable.process.kill()
    with pytest.raises(UserError) as caught:
        await waiting
    assert caught.value.code is Code.ENGINE_FAILED
