"""Files of adapters, and a stand-in for what vLLM does with them."""

import hashlib
from pathlib import Path
from typing import Any

from freehold.core.adapter import CONFIG, WEIGHTS
from freehold.core.ids import digest_of_files


def told(folder: Path, content: bytes = b"w") -> dict[str, Any]:
    """What the gateway says of an adapter whose files this writes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_bytes(b"{}")
    (folder / WEIGHTS).write_bytes(content)
    digests = {
        name: f"sha256:{hashlib.sha256((folder / name).read_bytes()).hexdigest()}"
        for name in (CONFIG, WEIGHTS)
    }
    return {
        "digest": digest_of_files(digests),
        "config": str(folder / CONFIG),
        "weights": str(folder / WEIGHTS),
    }


class Holder:
    """Reads every adapter but those whose weights say `bad`."""

    def __init__(self) -> None:
        self.held: dict[str, Path] = {}

    async def load(self, digest: str, folder: Path) -> bool:
        if (folder / WEIGHTS).read_bytes() == b"bad":
            return False
        assert digest not in self.held
        self.held[digest] = folder
        return True

    async def remove(self, digest: str) -> None:
        del self.held[digest]
