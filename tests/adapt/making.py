"""Datasets for tests that are not about what they hold."""

import json
import secrets
from pathlib import Path
from typing import Any

from freehold.adapt.dataset.prepare import Wanted, prepare
from freehold.catalog.datasets import staging
from tests.adapt import tickets


def laid(home: Path, seed: int = 1) -> str:
    """The ticket of a small dataset that lies where the gateway takes it from."""
    ticket = secrets.token_hex(16)
    folder = staging(home) / ticket
    folder.mkdir(mode=0o700, parents=True)
    path = tickets.write(home / f"{ticket}.jsonl", 12, seed)
    prepare(path, folder, Wanted(seed=seed))
    path.unlink()
    return ticket


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(each) for each in path.read_text(encoding="utf-8").splitlines()]
