"""Files of examples, and what becomes of them."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from freehold.adapt.dataset.prepare import Wanted, prepare
from tests.adapt.making import lines


@dataclass
class Made:
    folder: Path
    report: dict[str, Any]

    @property
    def train(self) -> list[dict[str, Any]]:
        return lines(self.folder / "train.jsonl")

    @property
    def held_out(self) -> list[dict[str, Any]]:
        return lines(self.folder / "held_out.jsonl")


Make = Callable[..., Made]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """From examples, or from the bytes of a file."""
    count = 0

    def made(
        content: bytes | Iterable[Any],
        name: str = "examples.jsonl",
        after: Callable[[], object] = lambda: None,
        **wanted: Any,
    ) -> Made:
        """`after` is done once the file is there."""
        nonlocal count
        count += 1
        place = tmp_path / str(count)
        folder = place / "made"
        folder.mkdir(parents=True)
        if not isinstance(content, bytes):
            written = "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in content)
            content = written.encode()
        (place / name).write_bytes(content)
        after()
        return Made(folder, prepare(place / name, folder, Wanted(**wanted)))

    return made


def chat(question: str, answer: str, **fields: Any) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer, **fields},
        ]
    }
