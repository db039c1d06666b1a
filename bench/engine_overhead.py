"""What the gateway costs of an engine's own speed.

`python bench/engine_overhead.py` starts `freehold up` with the default model on each local
engine in turn, and sends the same streams straight to the engine's socket and through the
gateway, in turns, on the same engine process; each pair of turns gives one ratio.
"""

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Iterator
from importlib.metadata import version

import aiohttp
import machine
from served import Served, served

_PORT = 18085
_TOKENS = 64
_STREAMS = {1: (4, 24), 8: (1, 14), 32: (1, 12)}  # answers of each in a turn, turns
_OWN: dict[str, dict[str, object]] = {  # what the gateway adds to a request of each engine
    "llama_cpp": {"lora": [], "cache_prompt": False},
    "openvino": {"adapter": None, "cache_salt": "direct", "tenant": "direct"},
}
_NO_END = {"0": -100, "2": -100}  # SmolLM2's end tokens: every answer has all its tokens


def _prompt(stream: int) -> str:
    return f"Number {stream} tells a story. Once upon a time there was a ship that"


async def _tokens_per_s(
    connector: aiohttp.BaseConnector,
    url: str,
    headers: dict[str, str],
    bodies: list[object],
    times: int,
) -> float:
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

        async def one(body: object) -> int:
            made = 0
            for _ in range(times):
                async with session.post(f"{url}/v1/completions", json=body) as response:
                    response.raise_for_status()
                    async for line in response.content:
                        if b'"usage":{' in line:
                            made += json.loads(line[6:])["usage"]["completion_tokens"]
            return made

        begun = time.perf_counter()
        made = sum(await asyncio.gather(*map(one, bodies)))
        return made / (time.perf_counter() - begun)


def _body(model: str, stream: int, own: dict[str, object]) -> object:
    return {
        "model": model,
        "prompt": _prompt(stream),
        "max_tokens": _TOKENS,
        "temperature": 0,
        "logit_bias": _NO_END,
        "stream": True,
        "stream_options": {"include_usage": True},
        **own,
    }


def _direct(served: Served, streams: int) -> float:
    async def run() -> float:
        connector = aiohttp.UnixConnector(served.socket, limit=0, force_close=True)
        bodies = [_body(served.digest, stream, _OWN[served.engine]) for stream in range(streams)]
        return await _tokens_per_s(connector, "http://engine", {}, bodies, _STREAMS[streams][0])

    return asyncio.run(run())


def _through(served: Served, streams: int) -> float:
    async def run() -> float:
        connector = aiohttp.TCPConnector(limit=0)
        bodies = [_body(served.model, stream, {}) for stream in range(streams)]
        headers = {"authorization": f"Bearer {served.key}"}
        return await _tokens_per_s(connector, served.url, headers, bodies, _STREAMS[streams][0])

    return asyncio.run(run())


def _measure(served: Served) -> Iterator[machine.Row]:
    _direct(served, 8)
    for streams, (_, turns) in _STREAMS.items():
        pairs = []
        for number in range(turns):  # who goes first changes, so that no drift counts
            ways = (_direct, _through) if number % 2 else (_through, _direct)
            found = {way: way(served, streams) for way in ways}
            pairs.append((found[_direct], found[_through]))
        case = f"{served.engine}, {streams} streams"
        direct, through = (statistics.median(side) for side in zip(*pairs, strict=True))
        cost = statistics.median((1 - through / direct) * 100 for direct, through in pairs)
        own = version("freehold")
        yield machine.Row("engine", served.engine, case, "tokens/s", direct)
        yield machine.Row("freehold", own, case, "tokens/s", through)
        yield machine.Row("freehold", own, case, "cost %, median of pairs", cost)
        print(case, [f"{d:.0f}/{t:.0f}" for d, t in pairs], flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=list(_OWN), action="append", help="all by default")
    engines = parser.parse_args().engine or list(_OWN)
    rows: list[machine.Row] = []
    for engine in engines:
        with served(engine, _PORT, max(_STREAMS), 512) as gateway:
            rows += _measure(gateway)
    machine.keep("engine_overhead", rows, merge=len(engines) < len(_OWN))


if __name__ == "__main__":
    main()
