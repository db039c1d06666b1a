"""A gateway's part in a test that kills it: starts one engine, says its number, waits."""

import asyncio
import json
import sys
from pathlib import Path

from freehold.core.engine import LaunchSpec
from freehold.deploy.process import Process


async def main(spec: str, log: str) -> None:
    process = await Process.start(LaunchSpec(**json.loads(spec)), Path(log))
    print(process.pid, flush=True)  # noqa: T201
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
