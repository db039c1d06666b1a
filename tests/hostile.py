"""An engine that answers with bytes of a test's own choice: the prompt names which.
`python -m tests.hostile --socket=PATH --digest=DIGEST`, as an engine is started."""

import argparse
import asyncio
import functools
import json
import sys
from collections.abc import Awaitable, Callable

from freehold.core.engine import LaunchSpec
from freehold.engines import child
from freehold.engines.base import LocalModel
from freehold.engines.fake import Fake
from tests import upstream as far
from tests.upstream import Asked

Behaviour = Callable[[Asked], Awaitable[None]]


class Hostile(Fake):
    def launch(self, model: LocalModel, socket_path: str) -> LaunchSpec:
        argv = (sys.executable, "-m", "tests.hostile", f"--socket={socket_path}")
        environment = child.clean_environment()
        return LaunchSpec((*argv, f"--digest={model.card.digest}"), environment, socket_path, 30.0)


def _forever(content: bytes, first: bytes = b"") -> Behaviour:
    async def behave(asked: Asked) -> None:
        await asked.say(first)
        while True:
            await asked.say(content)

    return behave


def _slowly(content: bytes) -> Behaviour:
    async def behave(asked: Asked) -> None:
        for at in range(len(content)):
            await asked.say(content[at : at + 1])
            await asyncio.sleep(0.1)

    return behave


def _once(*parts: bytes) -> Behaviour:
    async def behave(asked: Asked) -> None:
        await asked.say(b"".join(parts))
        await asyncio.sleep(60)

    return behave


@functools.cache
def _bomb() -> bytes:
    return far.piece(far.zeros(256 * 2**20))


def _bombed(head: bytes) -> Behaviour:
    async def behave(asked: Asked) -> None:
        await asked.say(head + _bomb())
        await asyncio.sleep(60)

    return behave


_OK = b"HTTP/1.1 200 OK\r\n"
_GZIP = far.STREAM.replace(b"transfer-encoding", b"content-encoding: gzip\r\ntransfer-encoding")
_A_TOKEN = far.token("one")
_X = b"x" * 65_536
_DEEP = b'data: {"choices":' + b"[" * 400_000 + b"\n\n"
_HUGE = b'data: {"choices":[' + b"{}," * 200_000 + b"{}]}\n\n"

BEHAVIOURS: dict[str, Behaviour] = {
    "a line without an end": _forever(far.piece(_X), far.STREAM + far.piece(b"data: ")),
    "headers without an end": _forever(b"x-more: x\r\n" * 100, _OK),
    "a header without an end": _forever(_X, _OK + b"x-more: "),
    "a status line without an end": _forever(_X, b"HTTP/1.1 200 "),
    "interim answers without an end": _forever(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100),
    "a chunk size without an end": _forever(_X, far.STREAM + b"5;x="),
    "trailers without an end": _forever(b"x-more: x\r\n" * 100, far.STREAM + _A_TOKEN + b"0\r\n"),
    "comments without an end": _forever(far.piece(b": no token\n\n" * 500), far.STREAM),
    "a bomb of zeros": _bombed(_GZIP),
    "a bomb in a whole answer": _bombed(_GZIP.replace(b"text/event-stream", b"application/json")),
    "bytes that are no text": _once(far.STREAM, far.piece(b"data: \xff\xfe\xff\n\n"), far.LAST),
    "endless depth": _once(far.STREAM, far.piece(_DEEP), far.LAST),
    "a crowd of choices": _forever(far.piece(_HUGE), far.STREAM),
    "one byte at a time": _slowly(far.STREAM),
    "two lengths": _once(_OK, b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello!"),
    "a length below zero": _once(_OK, b"content-length: -1\r\n\r\nhello"),
    "a length and chunks": _once(_OK, b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0"),
    "a coding that is none": _once(_OK, b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n"),
    "an older protocol": _once(b"HTTP/0.9 200 OK\r\n\r\nhello"),
    "no HTTP at all": _once(b"\x16\x03\x01\x00hello\r\n\r\n"),
}


async def behave(asked: Asked) -> None:
    """What the prompt names, up to a `#`."""
    await BEHAVIOURS[asked.prompt.split(" #")[0]](asked)


async def _serve(socket: str, digest: str) -> None:
    async def answer(asked: Asked) -> None:
        if asked.path.endswith("/models"):
            await asked.say(far.status(200, {"data": [{"id": digest}]}))
        elif asked.path.endswith("/chat/completions"):
            await behave(asked)
        else:  # whether it is alive
            await asked.say(far.status(200, {"choices": [{"index": 0, "text": "a"}], "tokens": 1}))

    found = far.Upstream(json.dumps(socket), answer)
    async with await asyncio.start_unix_server(found.serve, socket, limit=2**22) as server:
        await server.serve_forever()


def main() -> None:
    child.settle_in()
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", required=True)
    parser.add_argument("--digest", required=True)
    options = parser.parse_args()
    asyncio.run(_serve(options.socket, options.digest))


if __name__ == "__main__":
    main()
