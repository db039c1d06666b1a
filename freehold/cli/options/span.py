"""Spans of time as people write them: `30m`, `24h`, `7d`."""

import re
from datetime import UTC, datetime, timedelta

import typer

_WRITTEN = re.compile(r"([0-9]{1,6})([smhd]?)\Z")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def seconds(text: str) -> int | None:
    """None for what is no span; a bare number is of seconds."""
    found = _WRITTEN.match(text)
    return None if found is None else int(found[1]) * _SECONDS[found[2]]


def since(text: str) -> datetime:
    """A moment, written as it is or as how long ago it was."""
    ago = None if text.isdecimal() else seconds(text)
    if ago is not None:
        return datetime.now(UTC) - timedelta(seconds=ago)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            "30m, 24h, 7d or 2026-01-31T12:00:00Z", param_hint="--since"
        ) from None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
