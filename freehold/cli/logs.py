"""Structured logs without content: a line is JSON with fields from a closed list."""

import logging
import threading
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path

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
_WRITE_S, _MOST_RECORDS = 0.25, 4096


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
        return orjson.dumps(line, default=str).decode()


def _where(record: logging.LogRecord) -> str:
    """File and line of each frame, without the values that an error text may hold."""
    trace = record.exc_info[2] if record.exc_info else None
    frames = []
    while trace is not None:
        frames.append(f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return " > ".join(frames[-12:])


class _Buffered(RotatingFileHandler):
    """Lines are written together, a few times a second: opened, checked and flushed
    one by one they cost a busy gateway a seventh of its speed. What is worth a
    warning is written at once, and with it all before it."""

    def __init__(self, path: Path) -> None:
        self._records: list[logging.LogRecord] = []
        super().__init__(path, maxBytes=_MAX_BYTES, backupCount=_KEPT, encoding="utf-8")
        threading.Thread(target=self._keep_writing, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record)
        if record.levelno >= logging.WARNING or len(self._records) >= _MOST_RECORDS:
            self.flush()

    def flush(self) -> None:
        if self.lock is None:
            return
        with self.lock:
            records, self._records = self._records, []
            if records and self.shouldRollover(records[0]):
                self.doRollover()
            if records and self.stream is not None:
                self.stream.write("".join(f"{self.format(record)}\n" for record in records))
            super().flush()

    def _keep_writing(self) -> None:
        while True:
            time.sleep(_WRITE_S)
            if self._records:
                self.flush()


def configure(folder: Path, level: str) -> None:
    handler = _Buffered(folder / "gateway.jsonl")
    handler.setFormatter(_Line())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("uvicorn.access", "httpx2", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
