"""An upstream that streams: each request gets chunks at a steady rate, and each chunk
says when it was sent. `python bench/stream_upstream.py PORT RATE SECONDS`."""

import asyncio
import random
import sys
import time

import uvloop

_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
    b"cache-control: no-cache\r\n\r\n"
)
_CHUNK = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,'
    b'"model":"bench","choices":[{"index":0,"delta":{"content":"t%d "},"finish_reason":null}]}'
    b"\n\n"
)
_LAST = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,'
    b'"model":"bench","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,'
    b'"model":"bench","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":%d,'
    b'"total_tokens":%d}}\n\n'
    b"data: [DONE]\n\n"
)


def _framed(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content)


class Upstream(asyncio.Protocol):
    def __init__(self, rate: float, seconds: float) -> None:
        self._pause_s = 1 / rate
        self._count = int(rate * seconds)
        self._seen = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._seen += data
        head, separator, body = self._seen.partition(b"\r\n\r\n")
        if not separator:
            return
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        if len(body) >= length:
            self._seen = body[length:]
            self._transport.write(_HEAD)
            loop = asyncio.get_running_loop()
            # Streams begin anywhere within a pause, as those of different people do.
            self._next_s = loop.time() + random.uniform(0, self._pause_s)
            loop.call_at(self._next_s, self._send, self._count)

    def _send(self, left: int) -> None:
        if self._transport.is_closing():
            return
        if not left:
            last = _LAST % (self._count, self._count + 9)
            self._transport.write(_framed(last) + b"0\r\n\r\n")
            return
        self._transport.write(_framed(_CHUNK % time.perf_counter_ns()))
        self._next_s += self._pause_s
        asyncio.get_running_loop().call_at(self._next_s, self._send, left - 1)


async def main(port: int, rate: float, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Upstream(rate, seconds), "127.0.0.1", port, backlog=4096
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))
