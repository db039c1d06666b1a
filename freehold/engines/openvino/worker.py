"""The engine's process: proves the digest of its files, loads them, and serves OpenAI's
shape on its socket. Its one client is the gateway, which has checked every body."""

import argparse
import asyncio
import os
import signal
import sys
import threading
from pathlib import Path

import uvloop
from aiohttp import web

from freehold.engines import child, told_files

_EXIT_DIGEST = 3
_SWITCH_S = 0.0005  # or else the model's thread waits 5 ms for one that writes an answer


def main() -> None:
    child.settle_in()
    options = _options()
    files = told_files.by_name(options.file)
    digest = told_files.digest(files)
    if digest != options.digest:
        sys.stderr.write(f"the files are {digest}, expected {options.digest}\n")
        sys.exit(_EXIT_DIGEST)
    sys.setswitchinterval(_SWITCH_S)
    threading.excepthook = _die
    uvloop.run(_run(options, files))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--file", action="append", required=True, help="NAME=PATH, each of them")
    parser.add_argument("--digest", required=True)
    parser.add_argument("--socket", required=True)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--template-digest")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--streams", type=int, required=True)
    parser.add_argument("--context", type=int, required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--kv-cache", required=True)
    parser.add_argument("--kv-cache-bytes", type=int, required=True)
    parser.add_argument("--adapter-bytes", type=int, required=True)
    parser.add_argument("--max-rank", type=int, required=True)
    return parser.parse_args()


def _die(why: threading.ExceptHookArgs) -> None:
    """A fault of the model's thread ends the process, requests and all: nobody is left
    waiting, and the supervisor starts another."""
    threading.__excepthook__(why)
    os._exit(1)


async def _run(options: argparse.Namespace, files: dict[str, Path]) -> None:
    from freehold.engines.openvino.model import Model
    from freehold.engines.openvino.service import Service

    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    model = await asyncio.to_thread(Model, options, files)
    service = Service(model, loop)
    runner = web.AppRunner(
        service.app(), access_log=None, handler_cancellation=True, shutdown_timeout=1
    )
    await runner.setup()
    await web.UnixSite(runner, options.socket).start()
    await stop.wait()
    await runner.cleanup()
    service.end()


if __name__ == "__main__":
    main()
