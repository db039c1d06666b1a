"""The process of one job, as who looks after it sees it: also one that an earlier gateway
started."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from freehold.config.home import write_private
from freehold.core.job import Job
from freehold.engines.child import inherited

LOG, RESULT, _STDERR, _RECORD = "log.jsonl", "result.json", "stderr.log", "process.json"
_MOST_STDERR = 256 * 1024
_SHOWN_STDERR = 4000
_LINE_BYTES = 1024 * 1024
_KEPT = (
    "PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "PYTHONPATH",
    "CUDA_VISIBLE_DEVICES",
)  # fmt: skip
_LOW = 10  # of niceness: a tenth of what others get who want the cores
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TORCH_NUM_THREADS")


@dataclass(slots=True)
class Said:
    """The last of each that the process said."""

    progress: dict[str, Any] | None = None
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None

    @property
    def is_final(self) -> bool:
        return self.result is not None or self.error is not None


class JobProcess:
    """Its work folder holds everything that is known of it, so that the next gateway finds a
    living process by its number and the time that it began at."""

    def __init__(self, work: Path, process: psutil.Process, record: dict[str, Any]) -> None:
        self.work = work
        self.said = Said()
        self._process = process
        self._record = record
        self._read_to = int(record.get("said_from", 0))  # what is before is of an earlier one
        self._is_child = False
        self._status: int | None = None

    @classmethod
    def start(
        cls,
        home: Path,
        work: Path,
        job: Job,
        program: Sequence[str],
        threads: int | None,
        key: str | None = None,
        is_idle: bool = True,
    ) -> "JobProcess":
        """Raises `OSError`. `threads`: None lets it use all cores, and as much of them as others
        do; with a number it gives way, to everything else where it `is_idle`. `key` is what it
        asks models with, which no file holds."""
        work.mkdir(mode=0o700, parents=True, exist_ok=True)
        before, said_from = _record_of(work), _size(work / LOG)
        spec = dict(job.spec) | ({} if key is None else {"key": key})
        told = {"kind": job.kind, "home": str(home), "work": str(work), "spec": spec}
        with (
            _in_memory() as asked,
            _appended(work / LOG) as said,
            _appended(work / _STDERR) as errors,
        ):
            asked.write(json.dumps(told).encode())
            asked.seek(0)
            child = subprocess.Popen(
                [sys.executable, *program], stdin=asked, stdout=said, stderr=errors,
                env=_environment(threads), start_new_session=True,
            )  # fmt: skip
        process = psutil.Process(child.pid)
        record = {
            "pid": child.pid,
            "began": process.create_time(),
            "starts": before.get("starts", 0) + 1,
            "seconds": before.get("seconds", 0.0),
            "step": before.get("step", -1),
            "said_from": said_from,
            "run": before.get("run", 0),
        }
        # It may outlive us, and is waited for by its number: to Python that is a leak.
        child.returncode = 0
        made = cls(work, process, record)
        made._is_child = True
        made.keep()
        if threads is not None:
            _give_way(child.pid, is_idle)
        return made

    @classmethod
    def adopt(cls, work: Path) -> "JobProcess | None":
        """What was started for this work folder, if it still runs; what it said is read anew."""
        record = _record_of(work)
        try:
            process = psutil.Process(record["pid"])
            is_it = abs(process.create_time() - record["began"]) < 1.0
            if not is_it or process.status() == psutil.STATUS_ZOMBIE:
                return None
        except (KeyError, psutil.Error):
            return None
        return cls(work, process, record)

    @classmethod
    def ended(cls, work: Path) -> Said:
        """What one that is gone said in the end."""
        gone = cls(work, psutil.Process(), _record_of(work))
        gone.listen()
        return gone.said

    @property
    def starts(self) -> int:
        return int(self._record["starts"])

    @property
    def seconds(self) -> float:
        """That it has run, with the times before."""
        return float(self._record["seconds"])

    def ran(self, seconds: float) -> None:
        self._record["seconds"] += seconds

    def keep(self) -> None:
        """Raises `OSError`."""
        write_private(self.work / _RECORD, json.dumps(self._record).encode())

    def came_to(self, step: object) -> None:
        """One that comes further each time is no process which cannot even begin."""
        if isinstance(step, int) and step > self._record["step"]:
            self._record |= {"step": step, "starts": 1}

    def listen(self) -> None:
        """Reads on in what it said. A line that is not whole yet is read the next time."""
        try:
            with (self.work / LOG).open("rb") as file:
                file.seek(self._read_to)
                while (line := file.readline(_LINE_BYTES)).endswith(b"\n"):
                    self._read_to += len(line)
                    self._hear(line)
        except OSError:
            return

    def has_ended(self) -> bool:
        if self._is_child and self._status is None:
            self._status = _status_of(self._process.pid)
        if self._status is not None:
            return True
        try:
            return not self._process.is_running() or self._process.status() == psutil.STATUS_ZOMBIE
        except psutil.Error:
            return True

    @property
    def exit_status(self) -> int | None:
        """None for one that another gateway started."""
        return self._status

    @property
    def memory_bytes(self) -> int:
        """Of it and of those that it started."""
        found = 0
        with contextlib.suppress(psutil.Error):
            for each in (self._process, *self._process.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    found += each.memory_info().rss
        return found

    @property
    def log_bytes(self) -> int:
        return _size(self.work / LOG)

    def bound_errors(self) -> None:
        if _size(self.work / _STDERR) > _MOST_STDERR:
            with contextlib.suppress(OSError):
                os.truncate(self.work / _STDERR, 0)

    def last_words(self) -> str:
        """What it left on standard error, where it said nothing else."""
        try:
            return (self.work / _STDERR).read_bytes()[-_SHOWN_STDERR:].decode("utf-8", "replace")
        except OSError:
            return ""

    def ask_to_end(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        """To its whole session, unless its number is that of a stranger by now."""
        if not self.has_ended():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    def _hear(self, line: bytes) -> None:
        try:
            told = json.loads(line)
        except ValueError:
            return
        if not isinstance(told, dict):
            return
        for name in ("progress", "result", "error"):
            if isinstance(told.get(name), dict):
                setattr(self.said, name, told[name])


def heard(work: Path) -> list[dict[str, Any]]:
    """All that its process said, but for what is in its row."""
    found = []
    try:
        with (work / LOG).open("rb") as file:
            for line in file:
                with contextlib.suppress(ValueError):
                    told = json.loads(line)
                    if isinstance(told, dict) and ("log" in told or "progress" in told):
                        found.append(told)
    except OSError:
        return []
    return found


def written_down(work: Path, text: str) -> None:
    """Into its log, as if it had said it itself; a full disk takes nothing."""
    with contextlib.suppress(OSError), _appended(work / LOG) as file:
        file.write(json.dumps({"log": text}).encode() + b"\n")


def ran(work: Path) -> tuple[float, int]:
    """How many seconds since somebody decided that it goes on, and a number for that time."""
    record = _record_of(work)
    return float(record.get("seconds", 0.0)), int(record.get("run", 0))


def forgotten(work: Path) -> None:
    """What it said and how often it was started counts no more; its checkpoints do. The time
    that it may take begins anew, as somebody decided that it goes on."""
    if work.exists():
        said_from = _size(work / LOG)
        record = {"said_from": said_from, "run": said_from}
        write_private(work / _RECORD, json.dumps(record).encode())


def tidied(work: Path) -> None:
    """Only what it said and found is kept of a job that is done."""
    with contextlib.suppress(OSError):
        for path in work.iterdir():
            if path.name in (LOG, _RECORD, RESULT):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _record_of(work: Path) -> dict[str, Any]:
    try:
        found = json.loads((work / _RECORD).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _status_of(child: int) -> int | None:
    """None while it runs, or where somebody else waited for it."""
    try:
        pid, status = os.waitpid(child, os.WNOHANG)
    except ChildProcessError:
        return None
    return os.waitstatus_to_exitcode(status) if pid else None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _in_memory() -> Any:
    """A file without a name."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("asked"), "w+b")
    return tempfile.TemporaryFile()


def _appended(path: Path) -> Any:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")


def _environment(threads: int | None) -> Mapping[str, str]:
    """Nothing of ours but what a program needs: no keys, and no way to a hub."""
    limited = {} if threads is None else dict.fromkeys(_THREADS, str(threads))
    alone = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    return inherited(_KEPT) | limited | alone


def _give_way(pid: int, is_idle: bool) -> None:
    """To whatever else wants the cores, or leaving it most of them. A session of its own is a
    group of its own where the kernel groups by sessions, and then counts as much as all others
    unless that is told, too. When memory is short it is the first to go, as it can go on later."""
    nice = 19 if is_idle else _LOW
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, nice)
    if is_idle:
        # Where there is such a class, whoever wakes takes the core from it at once.
        with contextlib.suppress(AttributeError, OSError):
            os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
    for name, value in (("autogroup", str(nice)), ("oom_score_adj", "1000")):
        with contextlib.suppress(OSError):
            Path(f"/proc/{pid}/{name}").write_text(value)
    with contextlib.suppress(psutil.Error, AttributeError, OSError):
        psutil.Process(pid).ionice(psutil.IOPRIO_CLASS_IDLE)
