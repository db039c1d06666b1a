"""A fake engine that is a real process: it speaks OpenAI's shape on a unix socket,
answers each request with words that only that request can have, and fails on order.

Flags fail every request; a marker in the prompt, such as `[[crash 3]]` (die at the
third token), `[[hang 2]]`, `[[slow 0.05]]`, `[[tokens 40]]` or `[[wide 4000]]` (letters
added to each token), fails that one only; `[[say these words]]` is answered with those.
What it saw and what was cut off it tells on `GET /v1/seen`. It answers under adapters:
its words then come from the prompt and the adapter's digest.
"""

import argparse
import asyncio
import hashlib
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from freehold.core.engine import COMPLETIONS, Capabilities, EngineCall, LaunchSpec
from freehold.core.model import Task, digest_of_files
from freehold.engines import child
from freehold.engines.adapter_http import UNKNOWN_ADAPTER, AdapterHttp
from freehold.engines.base import LocalModel
from freehold.engines.fields import EMBEDDING_FIELDS, TEXT_FIELDS

_MARKER = re.compile(r"\[\[(crash|hang|slow|tokens|wide|garbage|say) ([^\]]+)\]\]")
_DEFAULT_TOKENS = 16
_OTHER_DIGEST = "sha256:" + "0" * 64
_GARBAGE = (
    "huge-line", "bad-utf8", "not-json", "wrong-id", "no-done", "redirect", "status",
    "wrong-adapter", "no-adapter",
)  # fmt: skip
_SALTED = "--salted"
_COMPUTE_S = 0.06


class Fake:
    name = "fake"

    def __init__(self, flags: tuple[str, ...] = (), streams: int = 64) -> None:
        self._flags = flags
        self._streams = streams

    def capabilities(self, model: LocalModel) -> Capabilities:
        is_embedding = model.card.task is Task.EMBEDDINGS
        return Capabilities(
            fields=EMBEDDING_FIELDS if is_embedding else TEXT_FIELDS,
            context_length=model.card.context_length,
            concurrency=self._streams,
            answers_whole=is_embedding,
            adapters=not is_embedding,
            salted=_SALTED in self._flags,
        )

    def launch(self, model: LocalModel, socket_path: str) -> LaunchSpec:
        argv = (
            sys.executable,
            "-m",
            "freehold.engines.fake",
            f"--socket={socket_path}",
            f"--digest={model.card.digest}",
            f"--context={model.card.context_length}",
            *self._flags,
        )
        return LaunchSpec(argv, child.clean_environment(), socket_path, 30.0)

    def connect(self, model: LocalModel, socket_path: str) -> "FakeClient":
        return FakeClient(socket_path)


class FakeClient(AdapterHttp):
    def __init__(self, socket_path: str) -> None:
        super().__init__("http://engine/v1", who="The engine", socket_path=socket_path)

    async def count_prompt_tokens(self, call: EngineCall) -> int | None:
        found = (await self.post_json("count", call.body)).get("tokens")
        return found if isinstance(found, int) else None

    async def probe(self) -> None:
        body = {"prompt": "probe", "max_tokens": 1}
        await self.whole(EngineCall(COMPLETIONS, "probe", body, "probe"))


def tokens_for(prompt: str, count: int, adapter: str | None = None) -> list[str]:
    """The answer to `prompt` under `adapter`: words made from their hash, so that a
    mixed-up answer cannot look right."""
    seed = hashlib.sha256((prompt + (adapter or "")).encode(errors="surrogatepass")).hexdigest()[:8]
    return [f" {seed}-{index}" for index in range(count)]


class _Server:
    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._seen: list[str] = []
        self._cut: dict[str, float] = {}
        self._running = 0
        self._adapters: set[str] = set()
        self._told = 0  # calls about adapters
        self._last = ""
        self._kept: set[tuple[str | None, str]] = set()
        self._given: list[dict[str, Any]] = []  # what the gateway added to each call
        self._until_forgotten: int | None = options.forget_adapters

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/v1/seen", self._tell)
        app.router.add_post("/v1/count", self._count)
        app.router.add_post("/v1/adapters", self._change)
        app.router.add_post("/v1/embeddings", self._embed)
        app.router.add_post("/v1/chat/completions", self._answer)
        app.router.add_post("/v1/completions", self._answer)
        return app

    async def _models(self, request: web.Request) -> web.Response:
        return _json({"object": "list", "data": [{"id": self._options.digest}]})

    async def _tell(self, request: web.Request) -> web.Response:
        told = {"seen": self._seen, "cut": self._cut, "running": self._running}
        adapters = {"adapters": len(self._adapters), "told": self._told, "given": self._given}
        return _json({**told, **adapters})

    async def _change(self, request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        self._told += 1
        refused = {each["digest"]: why for each in body["add"] if (why := self._refusal(each))}
        self._adapters |= {each["digest"] for each in body["add"]} - set(refused)
        self._adapters -= set(body["drop"])
        return _json({"refused": refused})

    def _refusal(self, told: dict[str, str]) -> str | None:
        if self._options.refuse_adapters:
            return "it takes none"
        if self._options.trust_adapters:
            return None
        names = {
            "adapter_config.json": told["config"],
            "adapter_model.safetensors": told["weights"],
        }
        try:
            found = {name: _digest_of(Path(path)) for name, path in names.items()}
        except OSError:
            return "its files cannot be read"
        return None if digest_of_files(found) == told["digest"] else "its files were changed"

    async def _count(self, request: web.Request) -> web.Response:
        return _json({"tokens": _size(_prompt(orjson.loads(await request.read())))})

    async def _embed(self, request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
        orders = {**self._orders(), **dict(_MARKER.findall(_prompt(body)))}
        if "crash" in orders:
            os._exit(9)
        if any(_size(str(text)) > self._options.context for text in texts):
            return _json({"error": {"code": 500, "type": "server_error"}}, 500)
        data = [
            {"object": "embedding", "index": index, "embedding": _vector(str(text))}
            for index, text in enumerate(texts)
        ]
        tokens = sum(_size(str(text)) for text in texts)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        name = self._options.digest if orders.get("garbage") != "wrong-id" else _OTHER_DIGEST
        return _json({"object": "list", "data": data, "model": name, "usage": usage})

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        prompt = _prompt(body)
        self._seen.append(hashlib.sha256(prompt.encode(errors="surrogatepass")).hexdigest())
        orders = {**self._orders(), **dict(_MARKER.findall(prompt))}
        adapter = body.get("adapter")
        self._given.append({name: body.get(name) for name in ("adapter", "cache_salt", "tenant")})
        if adapter is not None and adapter not in self._adapters:
            return _json({"error": {"code": UNKNOWN_ADAPTER}}, 404)
        if self._until_forgotten is not None and adapter is not None:
            self._until_forgotten -= 1
            if self._until_forgotten == 0:
                self._adapters.clear()
        if _size(prompt) >= self._options.context:
            error = {
                "type": "exceed_context_size_error",
                "n_prompt_tokens": _size(prompt),
                "n_ctx": self._options.context,
            }
            return _json({"error": error}, 400)
        wanted = int(orders.get("tokens", _DEFAULT_TOKENS))
        limit = body.get("max_tokens") or body.get("max_completion_tokens") or wanted
        words = tokens_for(prompt, min(wanted, limit), adapter)
        if "say" in orders:
            words = re.findall(r"\s*\S+", orders["say"])[:limit]
        if self._options.leak_prompts:
            words[-1], self._last = f" {self._last}", prompt
        await self._compute(prompt, body.get("cache_salt"))
        reason = "length" if limit < wanted and "say" not in orders else "stop"
        if orders.get("garbage") in ("redirect", "status"):
            where = {"location": "http://127.0.0.1:1/"}
            return web.Response(
                status=302 if orders["garbage"] == "redirect" else 599, headers=where
            )
        self._running += 1
        try:
            return await self._stream(request, body, prompt, words, reason, orders)
        finally:
            self._running -= 1

    async def _compute(self, prompt: str, salt: str | None) -> None:
        """A prompt that is found again is answered sooner."""
        keeps = self._options.keep_prefixes
        if keeps is None:
            return
        name = (salt if keeps == "own" else None, prompt)
        if name not in self._kept:
            await asyncio.sleep(_COMPUTE_S)
            self._kept.add(name)

    def _orders(self) -> dict[str, str]:
        options = self._options
        flags = {
            "crash": options.crash_at_token,
            "hang": options.hang_at_token,
            "slow": options.slow,
            "garbage": options.garbage,
        }
        return {name: str(value) for name, value in flags.items() if value is not None}

    async def _stream(
        self,
        request: web.Request,
        body: dict[str, Any],
        prompt: str,
        words: list[str],
        reason: str,
        orders: dict[str, str],
    ) -> web.StreamResponse:
        is_chat = request.path.endswith("/chat/completions")
        under = _shown_adapter(body.get("adapter"), orders)
        usage = {
            "prompt_tokens": _size(prompt),
            "completion_tokens": len(words),
            "total_tokens": _size(prompt) + len(words),
            "prompt_tokens_details": {"cached_tokens": 0},
        }
        streams = bool(body.get("stream"))
        padding = "x" * int(orders.get("wide", 0))
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        if streams:
            await response.prepare(request)
        try:
            for index, word in enumerate(words):
                await self._misbehave(orders, index + 1, response)
                if streams:
                    event = self._event(is_chat, word + padding, index == 0, orders, under)
                    await response.write(event)
            if not streams:
                return self._whole(is_chat, padding.join([*words, ""]), reason, usage, under)
            last: dict[str, Any] = {"index": 0, "finish_reason": reason} | (
                {"delta": {}} if is_chat else {"text": ""}  # type: ignore[dict-item]
            )
            await response.write(_data(self._chunk(is_chat, [last], under)))
            await response.write(_data(self._chunk(is_chat, [], under) | {"usage": usage}))
            if orders.get("garbage") != "no-done":
                await response.write(b"data: [DONE]\n\n")
            await response.write_eof()
        except (ConnectionResetError, asyncio.CancelledError):
            digest = hashlib.sha256(prompt.encode(errors="surrogatepass")).hexdigest()
            self._cut[digest] = time.time()
            raise
        return response

    def _whole(
        self,
        is_chat: bool,
        text: str,
        reason: str,
        usage: dict[str, Any],
        under: dict[str, Any],
    ) -> web.Response:
        choice: dict[str, Any] = {"index": 0, "finish_reason": reason}
        choice |= {"message": {"role": "assistant", "content": text}} if is_chat else {"text": text}
        kind = "chat.completion" if is_chat else "text_completion"
        return _json(self._chunk(is_chat, [choice], under) | {"object": kind, "usage": usage})

    async def _misbehave(
        self, orders: dict[str, str], number: int, response: web.StreamResponse
    ) -> None:
        if number == int(orders.get("crash", 0)):
            os._exit(9)
        if number == int(orders.get("hang", 0)):
            await asyncio.sleep(3600)
        if "slow" in orders:
            await asyncio.sleep(float(orders["slow"]))
        else:
            await asyncio.sleep(0)
        garbage = orders.get("garbage") if number == 3 else None
        if garbage == "huge-line":
            for _ in range(64):
                await response.write(b"data: " + b"x" * (1 << 20))
        elif garbage == "bad-utf8":
            await response.write(b"data: \xff\xfe\xff\n\n")
        elif garbage == "not-json":
            await response.write(b"data: this is no JSON\n\n")

    def _event(
        self,
        is_chat: bool,
        word: str,
        is_first: bool,
        orders: dict[str, str],
        under: dict[str, Any],
    ) -> bytes:
        choice: dict[str, Any] = {"index": 0, "finish_reason": None}
        if is_chat:
            choice["delta"] = ({"role": "assistant"} if is_first else {}) | {"content": word}
        else:
            choice["text"] = word
        chunk = self._chunk(is_chat, [choice], under)
        if orders.get("garbage") == "wrong-id":
            chunk["model"] = _OTHER_DIGEST
        return _data(chunk)

    def _chunk(
        self, is_chat: bool, choices: list[dict[str, Any]], under: dict[str, Any]
    ) -> dict[str, Any]:
        return {
            "id": "fake",
            "object": "chat.completion.chunk" if is_chat else "text_completion",
            "created": 1,
            "model": self._options.digest,
            "choices": choices,
            "timings": {"cache_n": 0},
            **under,
        }


def _shown_adapter(adapter: str | None, orders: dict[str, str]) -> dict[str, Any]:
    """What each chunk says of the adapter; an order makes it a lie."""
    if orders.get("garbage") == "no-adapter":
        return {}
    return {"adapter": _OTHER_DIGEST if orders.get("garbage") == "wrong-adapter" else adapter}


def _digest_of(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def _json(content: Any, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(content), status=status, content_type="application/json")


def _data(content: Any) -> bytes:
    return b"data: " + orjson.dumps(content) + b"\n\n"


def _prompt(body: dict[str, Any]) -> str:
    if "messages" in body:
        return "\n".join(str(message.get("content")) for message in body["messages"])
    return str(body.get("prompt", body.get("input")))


def _size(prompt: str) -> int:
    return len(prompt.split()) + 4


def _vector(text: str) -> list[float]:
    return [byte / 255 for byte in hashlib.sha256(text.encode(errors="surrogatepass")).digest()[:8]]


def _fail_start(path: Path, times: int) -> None:
    count = int(path.read_text()) if path.exists() else 0
    path.write_text(str(count + 1))
    if count < times:
        sys.exit(1)


def main() -> None:
    child.settle_in()
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", required=True)
    parser.add_argument("--digest", required=True)
    parser.add_argument("--context", type=int, required=True)
    parser.add_argument("--crash-at-token", type=int)
    parser.add_argument("--hang-at-token", type=int)
    parser.add_argument("--slow", type=float)
    parser.add_argument("--garbage", choices=_GARBAGE)
    parser.add_argument("--start-delay", type=float, default=0)
    parser.add_argument("--fail-start", type=int, default=0)
    parser.add_argument("--fail-start-file", type=Path)
    parser.add_argument("--ignore-sigterm", action="store_true")
    parser.add_argument("--wrong-digest", action="store_true")
    parser.add_argument("--refuse-adapters", action="store_true")
    parser.add_argument("--trust-adapters", action="store_true", help="read no file of theirs")
    parser.add_argument("--forget-adapters", type=int, help="all, after so many calls under one")
    parser.add_argument("--leak-prompts", action="store_true", help="answer with the one before")
    parser.add_argument("--keep-prefixes", choices=("own", "all"), help="whose are found again")
    parser.add_argument(_SALTED, action="store_true", help="say that it keeps prefixes")
    parser.add_argument("--port", type=int, help="listen on this loopback port instead")
    options = parser.parse_args()
    if options.fail_start:
        _fail_start(options.fail_start_file, options.fail_start)
    if options.wrong_digest:
        options.digest = "sha256:" + "f" * 64
    time.sleep(options.start_delay)
    asyncio.run(_run(options))


async def _run(options: argparse.Namespace) -> None:
    runner = web.AppRunner(
        _Server(options).app(), access_log=None, handler_cancellation=True, shutdown_timeout=1
    )
    await runner.setup()
    if options.port:
        await web.TCPSite(runner, "127.0.0.1", options.port).start()
    else:
        await web.UnixSite(runner, options.socket).start()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, (lambda: None) if options.ignore_sigterm else stop.set)
    await stop.wait()
    await runner.cleanup()


if __name__ == "__main__":
    main()
