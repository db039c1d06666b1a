"""The delay that one gateway process adds to each chunk of many concurrent streams.

`python bench/streams.py` sends 300 streams of 30 chunks a second through Freehold,
LiteLLM and Portkey, one after the other and in rounds, and to the upstream itself; what
a gateway adds is its delay less that of the upstream alone.
"""

import asyncio
import json
import re
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import machine
import peers
import uvloop

_PORT = 18091
_STREAMS, _RATE, _SECONDS, _ROUNDS = 300, 30, 10, 1
_LIMIT_S = 45.0  # a gateway that cannot keep up is not waited for longer
_WARM_S = 2.0  # not counted: the herd of beginnings
_STAMP = re.compile(rb'"t(\d+) ')
_BODY = json.dumps(
    {
        "model": "bench",
        "messages": [{"role": "user", "content": "Hello, how are you?"}],
        "stream": True,
    }
).encode()


class Stream(asyncio.Protocol):
    """One request; `delays` gets (when it came, how long it took), in nanoseconds."""

    def __init__(self, head: bytes, delays: list[tuple[int, int]]) -> None:
        self._head = head
        self._delays = delays
        self._rest = b""
        self.done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._transport.write(self._head + _BODY)

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter_ns()
        content = self._rest + data
        end = 0
        for found in _STAMP.finditer(content):
            self._delays.append((now, now - int(found[1])))
            end = found.end()
        if b"[DONE]" in content and not self.done.done():
            self.done.set_result(True)
            self._transport.close()
        self._rest = content[max(end, len(content) - 64) :]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(False)


async def _run(port: int, headers: dict[str, str]) -> tuple[list[float], int, float]:
    """The delays in milliseconds, the streams that did not end, and the seconds taken."""
    lines = {
        "host": f"127.0.0.1:{port}",
        "content-type": "application/json",
        "content-length": str(len(_BODY)),
        **headers,
    }
    head = "POST /v1/chat/completions HTTP/1.1\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in lines.items()) + "\r\n"
    loop = asyncio.get_running_loop()
    delays: list[tuple[int, int]] = []
    begun = time.perf_counter_ns()
    streams = []
    for _ in range(_STREAMS):
        _, stream = await loop.create_connection(
            lambda: Stream(head.encode(), delays), "127.0.0.1", port
        )
        streams.append(stream)
        await asyncio.sleep(_WARM_S / 2 / _STREAMS)
    await asyncio.wait([stream.done for stream in streams], timeout=_LIMIT_S)
    unended = sum(not (stream.done.done() and stream.done.result()) for stream in streams)
    counted = [delay / 1e6 for at, delay in delays if at - begun > _WARM_S * 1e9]
    return counted, unended, (time.perf_counter_ns() - begun) / 1e9


def _figures(delays: Sequence[float], unended: int, seconds: float) -> dict[str, float]:
    if not delays:
        raise SystemExit(f"no chunk came through: {unended} streams did not end")
    ordered = sorted(delays)
    return {
        "delay p50 ms": ordered[len(ordered) // 2],
        "delay p99 ms": ordered[int(len(ordered) * 0.99)],
        "delay max ms": ordered[-1],
        "streams not ended": unended,
        "seconds for all": seconds,
    }


def main() -> None:
    peers.need("node", "npm")
    found: dict[tuple[str, str, str], list[float]] = {}

    def take(system: str, version: str, port: int, headers: dict[str, str]) -> None:
        figures = _figures(*uvloop.run(_run(port, headers)))
        print(system, {name: round(value, 2) for name, value in figures.items()}, flush=True)
        for metric, value in figures.items():
            found.setdefault((system, version, metric), []).append(value)

    script = str(Path(__file__).with_name("stream_upstream.py"))
    command = [sys.executable, script, str(_PORT), str(_RATE), str(_SECONDS)]
    upstream = subprocess.Popen(command)
    try:
        _wait_for_upstream()
        for number in range(_ROUNDS):
            print(f"round {number + 1} of {_ROUNDS}")
            take("none", "direct", _PORT, {})
            for start in peers.EVERY:
                with start(f"http://127.0.0.1:{_PORT}/v1") as peer:
                    take(peer.system, peer.version, int(peer.url.rsplit(":", 1)[1]), peer.headers)
    finally:
        upstream.kill()
    case = f"{_STREAMS} streams, {_RATE} chunks/s each"
    rows = [
        machine.Row(system, version, case, metric, statistics.median(values))
        for (system, version, metric), values in found.items()
    ]
    machine.keep("streams", rows + _added(rows, case))


def _wait_for_upstream() -> None:
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", _PORT)).close()
            return
        except ConnectionRefusedError:
            time.sleep(0.1)
    raise SystemExit("the upstream did not start")


def _added(rows: list[machine.Row], case: str) -> list[machine.Row]:
    value = {(row.system, row.metric): row.value for row in rows}
    versions = {row.system: row.version for row in rows}
    return [
        machine.Row(
            system, version, case, f"added {metric}", value[system, metric] - value["none", metric]
        )
        for system, version in versions.items()
        if system != "none"
        for metric in ("delay p50 ms", "delay p99 ms")
    ]


if __name__ == "__main__":
    main()
