"""lm-evaluation-harness asks a route through the gateway, in a process of its own."""

import asyncio
import json
import math
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub.constants import ENDPOINT

from freehold.adapt.evaluate.asking import Gateway, Route
from freehold.config.home import write_private
from freehold.core.errors import Code, UserError

_LOG_MOST = 256 * 1024
_REACH_S = 3.0
_TRIES, _ANSWER_S = 5, 600
_REFUSED = re.compile(r"(?:Response text|error message): (\{.*\})\. Retrying")
_NO_TASK = re.compile(r"Tasks? not found: (.*)")
_NO_DATA = ("Couldn't reach", "OfflineModeIsEnabled", "LocalEntryNotFoundError", "Couldn't find")


@dataclass(frozen=True, slots=True)
class Harness:
    tasks: tuple[str, ...]
    folder: Path | None  # tasks of one's own, as YAML
    limit: int | None  # so many examples of each
    at_once: int


async def measured(
    gateway: Gateway, url: str, key: str, alias: str, asked: Harness, kept: Path
) -> dict[str, Any]:
    """What it found, also in `kept`. Raises `UserError`."""
    if find_spec("lm_eval") is None:
        raise UserError(
            Code.NOT_INSTALLED,
            "lm-evaluation-harness is not installed here: install it with "
            '`pip install "freehold[harness]"`.',
        )
    route = await gateway.route(alias)
    with _place(kept) as made:
        rc, said = await _ran(_command(url, alias, asked, made), _environment(url, key))
        said = said.replace(key, "…")  # it writes the headers of requests that failed
        whole = _written(made)
    if rc or whole is None:
        write_private(kept / "harness.log", said.encode())
        raise _failed(said, rc, kept / "harness.log", asked)
    if await gateway.route(alias) != route:
        raise UserError(
            Code.CONFLICT,
            f"{alias} led elsewhere meanwhile, so that two models answered: give the same "
            "command again.",
        )
    found = _result(_read(whole), route, asked)
    write_private(kept / "harness.json", whole)
    write_private(kept / "result.json", json.dumps(found).encode())
    (kept / "harness.log").unlink(missing_ok=True)  # of one that failed before
    return {**found, "kept": str(kept / "result.json")}


@contextmanager
def _place(kept: Path) -> Iterator[Path]:
    """A folder that is there meanwhile. Raises `UserError(FILE_INVALID)`."""
    try:
        kept.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = tempfile.mkdtemp(dir=kept)
    except OSError as error:
        raise UserError(
            Code.FILE_INVALID, f"{kept} cannot be written ({error.strerror}): make it yours."
        ) from None
    try:
        yield Path(made)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _written(made: Path) -> bytes | None:
    """The library adds the time to the name that it is given."""
    files = list(made.glob("result*.json"))
    return files[0].read_bytes() if files else None


def _command(url: str, alias: str, asked: Harness, folder: Path) -> list[str]:
    model = {
        "model": alias,
        "base_url": f"{url}/v1/chat/completions",
        "num_concurrent": asked.at_once,
        "max_retries": _TRIES,
        "timeout": _ANSWER_S,
    }
    # -P: nothing in the folder of whoever gives the command is taken for the library.
    words = [sys.executable, "-P", "-m", "lm_eval", "run", "--model", "local-chat-completions"]
    words += ["--model_args", json.dumps(model), "--apply_chat_template"]
    words += ["--output_path", str(folder / "result.json"), "--tasks", ",".join(asked.tasks)]
    if asked.folder is not None:
        words += ["--include_path", str(asked.folder)]
    if asked.limit is not None:
        words += ["--limit", str(asked.limit)]
    return words


def _environment(url: str, key: str) -> Mapping[str, str]:
    """The key is here, as every process of this machine could read it among the words."""
    told = {name: value for name, value in os.environ.items() if not name.startswith("FREEHOLD_")}
    host = urlsplit(url).hostname or ""
    told["NO_PROXY"] = told["no_proxy"] = ",".join(filter(None, [told.get("NO_PROXY"), host]))
    told |= {"OPENAI_API_KEY": key, "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONUTF8": "1"}
    if "HF_HUB_OFFLINE" not in told and _is_offline():  # else it tries for minutes
        told["HF_HUB_OFFLINE"] = "1"
    return told


def _is_offline() -> bool:
    there = urlsplit(ENDPOINT)
    if getproxies():
        return False
    try:
        socket.create_connection((there.hostname or "", there.port or 443), _REACH_S).close()
    except OSError:
        return True
    return False


async def _ran(command: list[str], environment: Mapping[str, str]) -> tuple[int, str]:
    """How it ended, and the end of what it said."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    said, is_cut = bytearray(), False
    try:
        while part := await _more(process):
            said += part
            if len(said) > 2 * _LOG_MOST:
                is_cut = True
                del said[:-_LOG_MOST]
        rc = await process.wait()
    finally:
        if process.returncode is None:  # Ctrl-C reached this process alone
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    text = said.decode(errors="replace")
    # A line that lost its beginning may begin amid the key, where nothing would find it.
    return rc, text.partition("\n")[2] if is_cut else text


async def _more(process: asyncio.subprocess.Process) -> bytes:
    return b"" if process.stdout is None else await process.stdout.read(64 * 1024)


def _failed(said: str, rc: int, log: Path, asked: Harness) -> UserError:
    tasks = ", ".join(asked.tasks)
    unknown, refused = _NO_TASK.findall(said), _REFUSED.findall(said)
    if unknown:
        return UserError(
            Code.INVALID_VALUE,
            f"lm-evaluation-harness has no task {unknown[-1].strip('[]')}: `lm_eval ls tasks` "
            "lists its own, and --harness-tasks names a folder with yours.",
        )
    if "in loglikelihood" in said:
        return UserError(
            Code.UNSUPPORTED_ENDPOINT,
            f"Of {tasks}, something asks how likely a given text is, which a route does not tell: "
            "choose tasks that let it write (`output_type: generate_until`).",
        )
    if refused:
        with suppress(ValueError, KeyError, TypeError):
            error = json.loads(refused[-1])["error"]
            return UserError(Code(error["code"]), error["message"])
    if any(words in said for words in _NO_DATA):
        return UserError(
            Code.SOURCE_UNREACHABLE,
            f"The data of {tasks} is not on this machine, and where it is kept cannot be reached: "
            "give the command once where it can, and copy ~/.cache/huggingface from there.",
        )
    lines = said.strip().splitlines() or [f"it ended with {rc}"]
    return UserError(
        Code.INVALID_VALUE,
        f"lm-evaluation-harness failed ({lines[-1][:200]}): see {log}.",
    )


def _read(whole: bytes) -> dict[str, Any]:
    try:
        found = json.loads(whole)
        if isinstance(found["results"], dict):
            return dict(found)
    except (ValueError, KeyError, TypeError):
        pass
    raise UserError(
        Code.FILE_INVALID,
        "What lm-evaluation-harness wrote cannot be read: install the version that "
        "`freehold[harness]` names.",
    )


def _result(found: dict[str, Any], route: Route, asked: Harness) -> dict[str, Any]:
    return {
        "harness": found.get("lm_eval_version"),
        "candidate": {
            "alias": route.alias,
            "model_digest": route.model_digest,
            "adapter_digest": route.adapter_digest,
        },
        "limit": asked.limit,
        "tasks": [_task(name, told, found) for name, told in found["results"].items()],
    }


def _task(name: str, told: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    def of(what: str) -> Any:
        return found.get(what, {}).get(name)

    samples, better = of("n-samples") or {}, of("higher_is_better") or {}
    return {
        "name": name,
        "version": of("versions"),
        "shots": of("n-shot"),
        "samples": samples.get("effective"),
        "samples_there": samples.get("original"),
        "metrics": [
            _metric(*key.partition(",")[::2], told, better)
            for key, value in told.items()
            if "," in key and "_stderr," not in key and _number(value) is not None
        ],
    }


def _metric(name: str, way: str, told: dict[str, Any], better: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "filter": way,
        "value": _number(told[f"{name},{way}"]),
        "stderr": _number(told.get(f"{name}_stderr,{way}")),
        "higher_is_better": better.get(name),
    }


def _number(value: Any) -> float | None:
    """A spread that it cannot tell is a word there."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None
