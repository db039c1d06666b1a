"""The client of engines, against one on a unix socket that says what the test wants:
hostile bytes end in the right code, in bounded memory, and quote nothing."""

import asyncio
import contextlib
import contextvars
import functools
import gc
import gzip
import itertools
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.core.engine import CHAT, EngineCall
from freehold.core.errors import Code, UserError
from freehold.core.secret import Secret
from freehold.engines import openai_http
from freehold.engines.http1 import Response
from freehold.engines.openai_http import OpenAIHttp, SseAnswer

_MB = 2**20
_STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
_JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n"
_DONE = b"data: [DONE]\n\n"
_CANARY = "canary-4711"


def _event(text: str = "a", **fields: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return b"data: " + orjson.dumps({"choices": [choice], **fields}) + b"\n\n"


class Engine:
    """Answers each request by calling `answer`; remembers what it was sent."""

    def __init__(self, answer: "Answer") -> None:
        self.answer = answer
        self.requests: list[bytes] = []
        self.connections = 0
        self.left = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or 0)
            self.requests.append(head + await reader.readexactly(length))
            await self.answer(reader, writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            self.left.set()
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


_over_tcp = contextvars.ContextVar("_over_tcp", default=False)


@pytest.fixture(autouse=True, params=["unix", "tcp"])
def transport(request: pytest.FixtureRequest) -> Iterator[None]:
    """Engines of ours answer on a unix socket, where no connection is kept, upstreams over
    TCP: one behaviour."""
    token = _over_tcp.set(request.param == "tcp")
    yield
    _over_tcp.reset(token)


@contextlib.asynccontextmanager
async def _engine(
    folder: Path, answer: Answer | bytes, **options: Any
) -> AsyncIterator[tuple[OpenAIHttp, Engine]]:
    async def say(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert isinstance(answer, bytes)
        for begin in range(0, len(answer), 65_536):
            writer.write(answer[begin : begin + 65_536])
            await writer.drain()

    engine = Engine(say if isinstance(answer, bytes) else answer)
    if _over_tcp.get():
        server = await asyncio.start_server(engine.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        client = OpenAIHttp(f"http://127.0.0.1:{port}/v1", who="The engine", **options)
    else:
        server = await asyncio.start_unix_server(engine.serve, folder / "e.sock")
        client = OpenAIHttp(
            "http://engine/v1", who="The engine", socket_path=str(folder / "e.sock"), **options
        )
    try:
        yield client, engine
    finally:
        await client.close()
        server.close()
        await server.wait_closed()


def _call(**body: Any) -> EngineCall:
    return EngineCall(CHAT, "sha256:m", {"messages": [], **body}, "req_1")


async def _stream(client: OpenAIHttp) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(60), client.stream(_call()) as answer:
        while (chunks := await answer.read()) is not None:
            found += chunks
    return found


async def _refusal(asked: Awaitable[Any]) -> UserError:
    with pytest.raises(UserError) as refused:
        await asked
    assert _CANARY not in refused.value.message
    assert "\n" not in refused.value.message
    return refused.value


def _texts(chunks: list[dict[str, Any]]) -> str:
    return "".join(part["delta"]["content"] for chunk in chunks for part in chunk["choices"])


def _headed(lines: bytes) -> bytes:
    return _STREAM[:-2] + lines + b"\r\n\r\n"


_CHUNKED, _ZIPPED = _headed(b"transfer-encoding: chunked"), _headed(b"content-encoding: gzip")


# what an engine may say


async def test_a_stream_is_read_to_its_end(tmp_path: Path) -> None:
    said = _STREAM + b": hello\n\nevent: x\n" + _event("one ") + _event("two") + _DONE
    async with _engine(tmp_path, said) as (client, _):
        assert _texts(await _stream(client)) == "one two"


async def test_answers_that_ended_need_no_search_for_cycles_to_go(tmp_path: Path) -> None:
    async with _engine(tmp_path, _STREAM + _event() + _DONE) as (client, engine):
        gc.collect()
        gc.disable()
        try:
            for _ in range(20):
                await _stream(client)
            await asyncio.sleep(0.05)  # until the connections of the last are lost
            left = [each for each in gc.get_objects() if isinstance(each, Response)]
        finally:
            gc.enable()
        assert len(left) <= 1
        assert engine.connections == 20


@settings(deadline=None)
@given(
    texts=st.lists(st.text(max_size=20), min_size=1, max_size=6),
    cuts=st.lists(st.integers(0, 2000), max_size=12),
    ending=st.sampled_from([b"\n\n", b"\r\n\r\n", b"\n: ping\n\nid: 7\n\n"]),
    prefix=st.sampled_from([b"data: ", b"data:"]),
)
def test_wherever_the_network_cuts_a_stream_it_reads_the_same(
    texts: list[str], cuts: list[int], ending: bytes, prefix: bytes
) -> None:
    content = b"".join(_event(text) for text in texts) + _DONE + b"data: too late\n\n"
    content = content.replace(b"\n\n", ending).replace(b"data: ", prefix)

    async def read() -> list[dict[str, Any]]:
        stream = asyncio.StreamReader()
        answer = SseAnswer(stream, "The engine")
        found: list[dict[str, Any]] = []
        edges = sorted({0, len(content), *(cut % len(content) for cut in cuts)})
        for begin, end in itertools.pairwise(edges):
            stream.feed_data(content[begin:end])
            task = asyncio.ensure_future(answer.read())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            if task.done():
                found += task.result() or []
            else:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        while (chunks := await answer.read()) is not None:
            found += chunks
        return found

    assert _texts(asyncio.run(read())) == "".join(texts)


async def test_the_engine_gets_the_body_and_its_own_fields_which_no_caller_overrides(
    tmp_path: Path,
) -> None:
    extra = {CHAT: {"lora": [], "cache_prompt": False}}
    said = _STREAM + _DONE
    async with _engine(tmp_path, said, extra_body=extra) as (client, engine):
        call = _call(temperature=0, lora=[{"id": 1}], model="x", stream=False, stream_options={})
        async with client.stream(call) as answer:
            assert await answer.read() is None
        engine.answer = (await _whole_answer(b"{}")).answer
        assert await client.whole(call) == {}
    heads = [request.partition(b"\r\n")[0] for request in engine.requests]
    assert heads == [b"POST /v1/chat/completions HTTP/1.1"] * 2
    streamed, whole = (
        orjson.loads(request.partition(b"\r\n\r\n")[2]) for request in engine.requests
    )
    own = {"messages": [], "temperature": 0, "lora": [], "cache_prompt": False, "model": "sha256:m"}
    assert streamed == own | {"stream": True, "stream_options": {"include_usage": True}}
    assert {name: whole[name] for name in own} == own


async def _whole_answer(content: bytes) -> Engine:
    async def say(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_JSON + content)

    return Engine(say)


# hostile answers

_BAD_STREAMS = {
    "nothing": b"",
    "half a head": b"HTTP/1.1 200 OK\r\ncontent-ty",
    "no http": b"\xff\xfe\x00\xff" * 100,
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "an impossible status": b"HTTP/1.1 99999999 OK\r\n\r\n",
    "no events": _JSON + b"{}",
    "no type": b"HTTP/1.1 200 OK\r\n\r\n" + _event() + _DONE,
    "a wrong type": _STREAM.replace(b"event-stream", b"\xff\xff;;=") + _event() + _DONE,
    "an end without DONE": _STREAM + _event(),
    "an end inside an event": _STREAM + _event() + _event()[:20],
    "bytes that are no text": _STREAM + _event() + b"data: \xff\xfe\n\n" + _DONE,
    "no JSON": _STREAM + b"data: canary-4711\n\n" + _DONE,
    "an empty event": _STREAM + b"data:\n\n" + _DONE,
    "a number": _STREAM + b"data: 7\n\n" + _DONE,
    "a list": _STREAM + b"data: []\n\n" + _DONE,
    "no choices": _STREAM + b'data: {"a": "canary-4711"}\n\n' + _DONE,
    "choices that are none": _STREAM + b'data: {"choices": {"0": {}}}\n\n' + _DONE,
    "a choice that is none": _STREAM + b'data: {"choices": [7]}\n\n' + _DONE,
    "an index that is none": _STREAM + b'data: {"choices": [{"index": "0"}]}\n\n' + _DONE,
    "a delta that is none": _STREAM + b'data: {"choices": [{"delta": "canary-4711"}]}\n\n' + _DONE,
    "a usage that is none": _STREAM + b'data: {"choices": [], "usage": [7]}\n\n' + _DONE,
    "an error": _STREAM + b'data: {"error": {"message": "canary-4711"}}\n\n' + _DONE,
    "deep nesting": _STREAM + b'data: {"choices":' + b"[" * 50_000 + b"\n\n" + _DONE,
    "two lengths": _headed(b"content-length: 5\r\ncontent-length: 900") + _event() + _DONE,
    "length and chunks": _headed(b"content-length: 5\r\ntransfer-encoding: chunked")
    + b"5\r\nhello\r\n0\r\n\r\n",
    "a negative length": _headed(b"content-length: -1") + _DONE,
    "a short body": _headed(b"content-length: 9999") + _event(),
    "a chunk size that is none": _CHUNKED + b"zz\r\n" + _event(),
    "a negative chunk": _CHUNKED + b"-5\r\n" + _event(),
    "a chunk larger than the world": _CHUNKED + b"f" * 17 + b"\r\n" + _event(),
    "chunks that end early": _CHUNKED + b"0\r\n\r\n" + _event() + _DONE,
    "an unknown encoding": _headed(b"transfer-encoding: gzip, chunked, chunked") + _event(),
    "gzip that is none": _ZIPPED + _event() + _DONE,
    "a redirect": b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\n\r\n",
    "a header with a zero": _headed(b"x: y\r\nz\x00: a") + _event(),
    "no content": b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n",
    "another protocol on request":
        b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n" + _event() + _DONE,
}  # fmt: skip


@pytest.mark.parametrize("kind", _BAD_STREAMS)
async def test_what_is_no_answer_is_the_engines_failure(tmp_path: Path, kind: str) -> None:
    async with _engine(tmp_path, _BAD_STREAMS[kind]) as (client, engine):
        refused = await _refusal(_stream(client))
        assert refused.code is Code.ENGINE_FAILED
        assert engine.connections == 1
        engine.answer = (await _whole_answer(b'{"fine": 1}')).answer
        assert await client.whole(_call()) == {"fine": 1}, "the next request is served"


_BAD_WHOLE = {
    "nothing": b"", "no JSON": b"canary-4711", "a list": b"[]", "a text": b'"canary-4711"',
    "bytes": b"\xff\xfe", "half": b'{"choices": [',
}  # fmt: skip


@pytest.mark.parametrize("kind", _BAD_WHOLE)
async def test_a_whole_answer_that_is_none_is_the_engines_failure(
    tmp_path: Path, kind: str
) -> None:
    async with _engine(tmp_path, _JSON + _BAD_WHOLE[kind]) as (client, _):
        for asked in (client.whole(_call()), client.post_json("x", {}), client.get_json("x")):
            assert (await _refusal(asked)).code is Code.ENGINE_FAILED


def _endless(head: bytes, piece: bytes) -> Answer:
    async def say(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        for _ in range(64 * _MB // len(piece)):
            writer.write(piece)
            await writer.drain()

    return say


@functools.cache
def _bomb() -> bytes:
    """400 MB, small as they travel."""
    packing = zlib.compressobj(9, wbits=31)
    return b"".join(packing.compress(b"x" * _MB) for _ in range(400)) + packing.flush()


def _bombed(head: bytes, pack: Callable[[bytes], bytes] = bytes) -> Answer:
    async def say(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        content = head + pack(_bomb())
        for begin in range(0, len(content), 65_536):
            writer.write(content[begin : begin + 65_536])
            await writer.drain()

    return say


_ENDLESS: dict[str, Answer] = {
    "a line": _endless(_STREAM + b"data: ", b"x" * 65_536),
    "a line of events": _endless(_STREAM + b"data: ", b"data: " * 10_000),
    "headers": _endless(b"HTTP/1.1 200 OK\r\n", b"".join(b"x-%d: y\r\n" % n for n in range(5000))),
    "a header": _endless(b"HTTP/1.1 200 OK\r\nx: ", b"y" * 65_536),
    "a folded header": _endless(b"HTTP/1.1 200 OK\r\nx: ", b"y" * 60 + b"\r\n "),
    "a status line": _endless(b"HTTP/1.1 200 ", b"y" * 65_536),
    "a chunk's extension": _endless(_CHUNKED + b"5;", b"y" * 65_536),
    "a chunk's size": _endless(_CHUNKED, b"0" * 65_536),
    "trailers": _endless(_CHUNKED + b"0\r\n", b"".join(b"x-%d: y\r\n" % n for n in range(5000))),
    "zeros": _endless(b"", b"\0" * 65_536),
    "a compressed line": _bombed(_ZIPPED),
    "a line compressed twice": _bombed(_ZIPPED, gzip.compress),
    "an error": _endless(_JSON.replace(b"200", b"400"), b"x" * 65_536),
    "a compressed error": _bombed(_ZIPPED.replace(b"200", b"500")),
}


@pytest.mark.parametrize("kind", _ENDLESS)
async def test_what_never_ends_costs_little_memory(tmp_path: Path, kind: str) -> None:
    _bomb()  # it is memory too
    async with _engine(tmp_path, _ENDLESS[kind]) as (client, _):
        tracemalloc.start()
        try:
            refused = await _refusal(_stream(client))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert refused.code in (Code.ENGINE_FAILED, Code.INVALID_VALUE)
    assert peak < 16 * _MB


async def test_a_whole_answer_is_bounded_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_http, "_MAX_BODY_BYTES", _MB)
    async with _engine(tmp_path, _endless(_JSON, b" " * 65_536)) as (client, _):
        assert (await _refusal(client.whole(_call()))).code is Code.ENGINE_FAILED
    fits = b'{"a": "' + b"x" * (_MB - 9) + b'"}'
    async with _engine(tmp_path, _JSON + fits) as (client, _):
        assert len((await client.whole(_call()))["a"]) == _MB - 9


async def test_informational_answers_without_end_are_left_when_the_caller_leaves(
    tmp_path: Path,
) -> None:
    flood = _endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)
    async with _engine(tmp_path, flood) as (client, engine):
        tracemalloc.start()
        with pytest.raises((TimeoutError, UserError)):
            async with asyncio.timeout(0.2):
                await client.whole(_call())
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 16 * _MB
        async with asyncio.timeout(60):
            await engine.left.wait()


# refusals

_STATUSES = [
    (400, Code.INVALID_VALUE, Code.INVALID_VALUE), (404, Code.INVALID_VALUE, Code.UPSTREAM_REFUSED),
    (413, Code.INVALID_VALUE, Code.INVALID_VALUE), (422, Code.INVALID_VALUE, Code.INVALID_VALUE),
    (401, Code.ENGINE_FAILED, Code.UPSTREAM_REFUSED),
    (403, Code.ENGINE_FAILED, Code.UPSTREAM_REFUSED),
    (429, Code.ENGINE_FAILED, Code.UPSTREAM_RATE_LIMITED),
    (503, Code.ENGINE_UNAVAILABLE, Code.ENGINE_UNAVAILABLE),
    *((status, Code.ENGINE_FAILED, Code.ENGINE_FAILED) for status in
      (201, 206, 300, 304, 405, 418, 500, 501, 502, 504, 599)),
]  # fmt: skip


def _error(status: int, content: Any, *headers: bytes) -> bytes:
    raw = content if isinstance(content, bytes) else orjson.dumps(content)
    lines = [b"HTTP/1.1 %d X" % status, b"content-type: application/json", *headers]
    return b"\r\n".join([*lines, b"", raw])


@pytest.mark.parametrize("is_upstream", [False, True])
@pytest.mark.parametrize(("status", "of_engine", "of_upstream"), _STATUSES)
async def test_each_status_has_its_code_and_quotes_nothing(
    tmp_path: Path, status: int, of_engine: Code, of_upstream: Code, is_upstream: bool
) -> None:
    body = {"error": {"message": _CANARY, "type": _CANARY, "param": None, "other": _CANARY}}
    async with _engine(tmp_path, _error(status, body), is_upstream=is_upstream) as (client, _):
        for asked in (_stream(client), client.whole(_call())):
            refused = await _refusal(asked)
            assert refused.code is (of_upstream if is_upstream else of_engine)


@pytest.mark.parametrize(
    ("param", "reason", "shown"),
    [
        ("messages[0].content", "invalid_type", ("'messages[0].content'", "(invalid_type)")),
        (f"x {_CANARY}", f"{_CANARY}!", ("the request",)),
        (f"{_CANARY}\n", f"{_CANARY} ", ("the request",)),
        ("p" * 65, "r" * 65, ("the request",)),
        ([_CANARY], {"a": _CANARY}, ("the request",)),
        (None, 7, ("the request",)),
    ],
)
async def test_of_a_refusal_only_plain_identifiers_are_repeated(
    tmp_path: Path, param: Any, reason: Any, shown: tuple[str, ...]
) -> None:
    body = {"error": {"message": _CANARY, "param": param, "code": reason}}
    async with _engine(tmp_path, _error(400, body)) as (client, _):
        refused = await _refusal(_stream(client))
    assert all(part in refused.message for part in shown)
    assert len(refused.message) < 200
    assert refused.param in (param, None)


@pytest.mark.parametrize(
    ("body", "sizes"),
    [
        ({"type": "exceed_context_size_error", "n_prompt_tokens": 5000, "n_ctx": 4096},
         ("5,000", "4,096")),
        ({"type": "exceed_context_size_error", "n_prompt_tokens": _CANARY, "n_ctx": None}, ()),
        ({"code": "context_length_exceeded", "message": _CANARY}, ()),
    ],
)  # fmt: skip
async def test_a_prompt_that_is_too_long_is_told_with_its_size_where_it_is_known(
    tmp_path: Path, body: dict[str, Any], sizes: tuple[str, ...]
) -> None:
    async with _engine(tmp_path, _error(400, {"error": body})) as (client, _):
        refused = await _refusal(_stream(client))
    assert refused.code is Code.CONTEXT_LENGTH_EXCEEDED
    assert all(size in refused.message for size in sizes)


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"[]", b"7", b'"canary-4711"', b'{"error": "canary-4711"}',
                b'{"error": [1]}', b"<html>canary-4711</html>", b'{"error": {"message": ']
)  # fmt: skip
async def test_a_refusal_in_no_known_shape_is_still_one(tmp_path: Path, content: bytes) -> None:
    async with _engine(tmp_path, _error(400, content)) as (client, _):
        assert (await _refusal(_stream(client))).code is Code.INVALID_VALUE


async def test_a_refusal_that_is_told_too_slowly_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_http, "_CONNECT_S", 0.1)

    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_error(500, b""))
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with _engine(tmp_path, drip) as (client, engine):
        assert (await _refusal(_stream(client))).code is Code.ENGINE_FAILED
        async with asyncio.timeout(60):
            await engine.left.wait()


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(b"7", 7), (b"0", 0), (b"999999999", 3600), (b"9" * 400, 3600), (b"-1", 2), (b"1.5", 2),
     (b"soon", 2), (b"", 2), (b"Wed, 21 Oct 2026 07:28:00 GMT", 2), ("\u00b2".encode(), 2),
     ("\u0663".encode(), 2), (b"\xff", 2)],
)  # fmt: skip
async def test_a_hint_when_to_come_back_is_taken_as_far_as_it_makes_sense(
    tmp_path: Path, header: bytes, seconds: float
) -> None:
    said = _error(503, b"", b"retry-after: " + header)
    async with _engine(tmp_path, said) as (client, _):
        refused = await _refusal(_stream(client))
        assert (refused.code, refused.retry_after_s) == (Code.ENGINE_UNAVAILABLE, seconds)


async def test_nobody_on_the_socket_is_told_as_such(tmp_path: Path) -> None:
    client = OpenAIHttp("http://engine/v1", who="The engine", socket_path=str(tmp_path / "none"))
    for asked in (_stream(client), client.whole(_call()), client.get_json("models")):
        refused = await _refusal(asked)
        assert refused.code is Code.ENGINE_UNAVAILABLE
        assert refused.retry_after_s
    await client.close()
    await client.close()


# connections


async def test_leaving_early_ends_the_connection_and_nobody_else_gets_the_rest(
    tmp_path: Path,
) -> None:
    turn = iter(range(100))

    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        me = next(turn)
        writer.write(_STREAM)
        for _ in range(3 if me else 10_000):
            writer.write(_event(f"{me} "))
            await writer.drain()
            await asyncio.sleep(0.005)
        writer.write(_DONE)

    async with _engine(tmp_path, slowly) as (client, engine):
        async with client.stream(_call()) as answer:
            assert await answer.read()
        async with asyncio.timeout(60):
            await engine.left.wait()
        assert _texts(await _stream(client)) == "1 1 1 "
        assert engine.connections == 2


async def test_what_follows_the_end_belongs_to_nobody(tmp_path: Path) -> None:
    async def on_and_on(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_STREAM + _event("mine") + _DONE)
        while True:
            writer.write(_event("stray"))
            await writer.drain()

    async with _engine(tmp_path, on_and_on) as (client, engine):
        assert _texts(await _stream(client)) == "mine"
        async with asyncio.timeout(60):
            await engine.left.wait()


async def test_neither_cookies_nor_proxies_of_the_environment_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    (tmp_path / ".netrc").write_text(f"machine engine login x password {_CANARY}")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    said = _error(200, b"{}", b"set-cookie: id=canary-4711; path=/")
    async with _engine(tmp_path, said, credential=Secret("sk-mine")) as (client, engine):
        for _ in range(2):
            assert await client.whole(_call()) == {}
    sent = engine.requests[1].lower()
    assert b"cookie" not in sent
    assert b"basic" not in sent
    assert sent.count(b"authorization: bearer sk-mine\r\n") == 1
    assert "sk-mine" not in repr(vars(Secret)) + repr(client)
