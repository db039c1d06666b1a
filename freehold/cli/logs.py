"""Structured logs without content: a line is JSON with fields from a closed list."""

import logging
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


def configure(folder: Path, level: str) -> None:
    handler = RotatingFileHandler(
        folder / "gateway.jsonl", maxBytes=_MAX_BYTES, backupCount=_KEPT, encoding="utf-8"
    )
    handler.setFormatter(_Line())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("uvicorn.access", "httpx2", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
