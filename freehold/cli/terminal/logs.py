"""Structured logs without content: a line is JSON with fields from a closed list."""

import json
import logging
import os
import threading
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

import orjson

_FIELDS = (
    "request_id",
    "key_id",
    "model",
    "endpoint",
    "outcome",
    "code",
    "tokens_in",
    "tokens_out",
    "duration_us",
    "reason",
)
_MAX_BYTES, _KEPT = 16 * 1024 * 1024, 5
_WRITE_S, _MANY_RECORDS, _MOST_RECORDS = 1.0, 4096, 32_768
_STUCK_S = 1.0  # a disk that takes this long is left alone


class _Line(logging.Formatter):
    """A field that is not listed cannot reach the log, whatever it holds."""

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{at}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": str(record.msg)[:200],
            "logger": record.name,
        }
        for name in _FIELDS:
            value = record.__dict__.get(name)
            if value is not None:
                line[name] = value
        if record.exc_info and record.exc_info[0] is not None:
            line["reason"] = record.exc_info[0].__name__
            line["where"] = _where(record)
        return _ascii(line)


def _ascii(line: dict[str, Any]) -> str:
    """JSON whose every unusual character is escaped: terminals obey some beyond ASCII's."""
    try:
        text = orjson.dumps(line, default=str).decode()
    except orjson.JSONEncodeError:  # half a surrogate pair
        return json.dumps(line, default=str)
    return text if text.isascii() else json.dumps(line, default=str)


def _where(record: logging.LogRecord) -> str:
    """File and line of each frame, without the values that an error text may hold."""
    trace = record.exc_info[2] if record.exc_info else None
    frames = []
    while trace is not None:
        frames.append(f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return " > ".join(frames[-12:])


class _Buffered(RotatingFileHandler):
    """Lines are written together, by a thread of their own a few times a second:
    opened, checked and flushed one by one they cost a busy gateway a seventh of its
    speed. What is worth a warning is written at once, and with it all before it.

    No request ever waits for the log or fails with it: lines that the disk refuses, or
    does not take in time, are lost, and the log says how many once it can."""

    def __init__(self, path: Path) -> None:
        self._records: list[logging.LogRecord] = []
        self._lost = 0
        self._wake = threading.Event()
        self._writing = threading.Lock()  # not the handler's own, for which `emit` waits
        super().__init__(path, maxBytes=_MAX_BYTES, backupCount=_KEPT, delay=True)
        threading.Thread(target=self._keep_writing, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        if len(self._records) >= _MOST_RECORDS:
            self._lost += 1
            return
        self._records.append(record)
        if record.levelno >= logging.WARNING or len(self._records) == _MANY_RECORDS:
            self._wake.set()

    def flush(self) -> None:
        records, lost = self._taken()
        if not records:
            return
        lines = [f"{self.format(record)}\n" for record in records]
        if lost:
            lines.insert(0, f"\n{self.format(_loss(lost))}\n")  # after what may be half a line
        if self._writing.acquire(timeout=_STUCK_S):
            try:
                self._write(records[0], "".join(lines).encode())
                return
            except OSError:
                self._reopen()
            finally:
                self._writing.release()
        self._lose(lost + len(records))

    def _taken(self) -> tuple[list[logging.LogRecord], int]:
        self.acquire()
        try:
            records, self._records = self._records, []
            lost = self._lost if records else 0
            self._lost -= lost
        finally:
            self.release()
        return records, lost

    def _lose(self, lines: int) -> None:
        self.acquire()
        try:
            self._lost += lines
        finally:
            self.release()

    def _write(self, first: logging.LogRecord, content: bytes) -> None:
        if self.shouldRollover(first):
            self.doRollover()
        if self.stream is None:
            self.stream = self._open()
        while content:  # past the stream's buffer, which would try again what was refused
            content = content[os.write(self.stream.fileno(), content) :]

    def _reopen(self) -> None:
        stream, self.stream = self.stream, None
        if stream is not None:
            stream.close()

    def _keep_writing(self) -> None:
        while True:
            self._wake.wait(_WRITE_S)
            self._wake.clear()
            self.flush()


def _loss(lines: int) -> logging.LogRecord:
    fields = {"levelno": logging.WARNING, "levelname": "WARNING", "msg": "log_lines_lost"}
    return logging.makeLogRecord({"name": __name__, "reason": f"{lines} lines", **fields})


def _record_less() -> None:
    """What no line tells need not be found out for each: Python's own way to say so
    (docs.python.org/3/howto/logging.html, Optimization)."""
    logging._srcfile = None
    logging.logThreads = False
    logging.logProcesses = False
    logging.logMultiprocessing = False
    logging.logAsyncioTasks = False  # type: ignore[attr-defined, unused-ignore]


def configure(folder: Path, level: str) -> None:
    _record_less()
    handler = _Buffered(folder / "gateway.jsonl")
    handler.setFormatter(_Line())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("uvicorn.access", "httpx2", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
