"""The gateway of the harness in a process of its own, so that its memory and its files
are its own too: `python -m tests.apart FOLDER OPTIONS`, until standard input closes."""

import asyncio
import json
import resource
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil
import uvloop

from freehold.config.schema import LimitSettings, UpstreamSettings
from freehold.engines.fake import Fake
from tests.harness import running
from tests.hostile import Hostile


@dataclass
class Apart:
    url: str
    key: str
    process: psutil.Process

    @property
    def rss_mb(self) -> float:
        return float(self.process.memory_info().rss / 2**20)

    def http(self, **options: Any) -> httpx2.AsyncClient:
        headers = {"authorization": f"Bearer {self.key}"}
        return httpx2.AsyncClient(base_url=self.url, headers=headers, timeout=30, **options)

    async def settled(self, count: int, within_s: float = 60) -> list[dict[str, Any]]:
        """Waits until so many requests are settled, and checks that none is twice."""
        async with asyncio.timeout(within_s), self.http() as client:
            while True:
                answer = await client.get("/admin/v1/requests", params={"limit": 1000})
                rows: list[dict[str, Any]] = answer.json()["data"]
                if len(rows) >= count and all(row["settled_at_us"] for row in rows):
                    assert len({row["id"] for row in rows}) == len(rows) == count
                    return rows
                await asyncio.sleep(0.1)


@asynccontextmanager
async def apart(folder: Path, *flags: str, **options: Any) -> AsyncIterator[Apart]:
    """`options` are those of `running` as far as JSON can hold them; `others` are names of
    further models on fake engines, `hostile` puts `tests.hostile` in the place of the
    first, `files` is how many the process may have open."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.apart",
        str(folder),
        json.dumps({"flags": flags, **options}),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parent.parent,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    said = json.loads(await process.stdout.readline())
    try:
        yield Apart(said["url"], said["key"], psutil.Process(process.pid))
    finally:
        process.stdin.close()
        status = await process.wait()
    assert status == 0


async def _serve(folder: Path, flags: Sequence[str], options: dict[str, Any]) -> None:
    limits = LimitSettings(**options.pop("limits", {}))
    upstreams = [UpstreamSettings(**upstream) for upstream in options.pop("upstreams", ())]
    if options.pop("hostile", False):
        options["engine"] = Hostile()
    options["others"] = {name: Fake() for name in options.pop("others", ())}
    async with running(folder, *flags, limits=limits, upstreams=upstreams, **options) as world:
        await world.replica.ensure_ready(30)
        sys.stdout.write(json.dumps({"url": world.url, "key": world.key}) + "\n")
        sys.stdout.flush()
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def main() -> None:
    options = json.loads(sys.argv[2])
    files = options.pop("files", None)
    if files is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    uvloop.run(_serve(Path(sys.argv[1]), options.pop("flags"), options))


if __name__ == "__main__":
    main()
