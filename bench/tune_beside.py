"""What serving keeps while an adapter is trained on the same machine: first tokens and tokens a
second of the shared-base engine, with and without a job, in turns.

    .venv-tune/bin/python bench/tune_beside.py

Needs the environment of `make test-tune`, as the gateway's own interpreter trains. The first start
fetches the small model; `--models HOME` takes it from a home that has it.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
from machine import LOCK, Row, exclusive, keep

sys.path.insert(0, str(Path(__file__).parents[1]))
from freehold import __version__
from tests.adapt import tickets
from tests.installation import Installation, share, start

BASE = "smollm2-135m-instruct"
_STREAMS, _TOKENS = 4, 48


def main() -> None:
    parser = parser_of()
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    with with_tickets(options.models, 3000) as installation, exclusive(options.lock):
        keep("tune_beside", asyncio.run(_turns(installation, options)))


def parser_of() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", type=Path)
    parser.add_argument("--lock", type=Path, action="append", default=[], help=LOCK)
    return parser


@contextmanager
def with_tickets(models: Path | None, count: int, *more: str) -> Iterator[Installation]:
    """A gateway that has a dataset `tickets`; `more` says of it what is not usual."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        home.mkdir()
        if models:
            share(models, home)
        installation = start(home)
        try:
            file = tickets.write(Path(folder) / "tickets.jsonl", count)
            said(installation, "data", "add", str(file), "--name", "tickets",
                 "--licence", "LicenseRef-own", "--origin", "invented", *more)  # fmt: skip
            yield installation
        finally:
            installation.kill()


async def _turns(installation: Installation, options: argparse.Namespace) -> list[Row]:
    found: dict[str, list[tuple[float, float]]] = {"alone": [], "beside a job": []}
    async with httpx2.AsyncClient(base_url=installation.url, timeout=120) as client:
        client.headers["authorization"] = f"Bearer {installation.key}"
        await _load(client, 5, "warm")
        for turn in range(options.turns):
            found["alone"] += await _load(client, options.seconds, f"a{turn}")
            job = await asyncio.to_thread(_started, installation)
            found["beside a job"] += await _load(client, options.seconds, f"b{turn}")
            await asyncio.to_thread(_cancelled, installation, job)
    rows = []
    for case, answers in found.items():
        firsts = sorted(first for first, _ in answers)
        shown = {
            "first token p50, ms": statistics.median(firsts) * 1e3,
            "first token p95, ms": firsts[int(len(firsts) * 0.95)] * 1e3,
            "tokens/s a stream": statistics.median(speed for _, speed in answers),
            "answers": float(len(answers)),
        }
        rows += [Row("freehold", __version__, f"{_STREAMS} streams, {case}", *one)
                 for one in shown.items()]  # fmt: skip
    return rows


async def _load(client: httpx2.AsyncClient, seconds: float, mark: str) -> list[tuple[float, float]]:
    """Of each answer: when the first token came, and tokens a second after it."""
    until = time.monotonic() + seconds

    async def stream(number: int) -> list[tuple[float, float]]:
        answers, count = [], 0
        while time.monotonic() < until:
            count += 1
            answers.append(await _ask(client, f"{mark} {number}.{count}: tell me of the sea."))
        return answers

    parts = await asyncio.gather(*(stream(number) for number in range(_STREAMS)))
    return [answer for part in parts for answer in part]


async def _ask(client: httpx2.AsyncClient, prompt: str) -> tuple[float, float]:
    body = {"model": BASE, "messages": [{"role": "user", "content": prompt}], "stream": True,
            "max_tokens": _TOKENS}  # fmt: skip
    begun, first, tokens = time.perf_counter(), 0.0, 0
    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: {") and _says_something(line):
                tokens += 1
                first = first or time.perf_counter()
    ended = time.perf_counter()
    return first - begun, (tokens - 1) / max(ended - first, 1e-9)


def _says_something(line: str) -> bool:
    choices = json.loads(line[6:])["choices"]
    return bool(choices and choices[0]["delta"].get("content"))


def _started(installation: Installation) -> str:
    """A job that is at its steps."""
    job = said(installation, "tune", "tickets", "--base", BASE, "--yes", "--epochs", "10")
    while not said(installation, "tune", "show", job["id"])["progress"].get("step"):
        time.sleep(0.5)
    return str(job["id"])


def _cancelled(installation: Installation, job: str) -> None:
    said(installation, "tune", "cancel", job)
    while said(installation, "tune", "show", job)["state"] == "running":
        time.sleep(0.5)


def said(installation: Installation, *words: str) -> Any:
    done = installation.run(*words, "--json", timeout=3600)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return json.loads(done.stdout)


if __name__ == "__main__":
    main()
