"""Which engine, in which settings, serves a model fastest on this machine: measured.

Every candidate is started as `up` would start it and given the same load, greedy streams
that all begin at once. The record is kept by what the machine and the model are; `up`
reads it.
"""

import asyncio
import dataclasses
import json
import secrets
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freehold.catalog.checkpoint import SHARED_BASE
from freehold.config.home import write_private
from freehold.config.schema import EngineSettings
from freehold.core.engine import COMPLETIONS, EngineCall
from freehold.core.errors import Code, UserError
from freehold.core.model import ModelCard, Task
from freehold.core.peft import RankLimit
from freehold.deploy.probe import Machine, read_machine
from freehold.deploy.process import Process
from freehold.engines import registry
from freehold.engines.base import Engine, EngineClient, LocalModel

Progress = Callable[[str, int, int], None]

_POLL_S, _TRIAL_S, _STOP_S = 0.05, 300.0, 5.0
_ROUNDS = 2  # the better one counts: what else the machine does only ever slows


@dataclass(frozen=True, slots=True)
class Workload:
    """`adapters`: whether requests name adapters, which only some engines can mix."""

    streams: int = 8
    prompt_tokens: int = 64
    answer_tokens: int = 64
    adapters: bool = False


@dataclass(frozen=True, slots=True)
class Candidate:
    """`options` are settings of the engine's own section."""

    engine: str
    options: Mapping[str, Any]

    def settings(self, base: EngineSettings) -> EngineSettings:
        changed: dict[str, Any] = {"default": self.engine}
        if self.options:
            section = getattr(base, self.engine)
            changed[self.engine] = section.model_copy(update=dict(self.options))
        return base.model_copy(update=changed)

    def __str__(self) -> str:
        told = ", ".join(f"{name} {value}" for name, value in self.options.items())
        return f"{self.engine} ({told})" if told else self.engine


@dataclass(frozen=True, slots=True)
class Trial:
    """`refused_because` stands where there are no numbers."""

    candidate: Candidate
    tokens_per_s: float = 0.0
    ttft_ms: float = 0.0
    start_s: float = 0.0
    rss_bytes: int = 0
    refused_because: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    model_digest: str
    machine: str
    workload: Workload
    measured_at_us: int
    trials: tuple[Trial, ...]

    @property
    def best(self) -> Candidate | None:
        sound = [trial for trial in self.trials if trial.refused_because is None]
        return max(sound, key=lambda trial: trial.tokens_per_s).candidate if sound else None


class Records:
    """Under `cache/`: what is lost is measured again."""

    def __init__(self, cache: Path) -> None:
        self._folder = cache / "autotune"

    def find(self, card: ModelCard, machine: Machine) -> Record | None:
        try:
            return _decoded(json.loads(self._path(card, machine).read_bytes()))
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def keep(self, card: ModelCard, machine: Machine, record: Record) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        content = json.dumps(dataclasses.asdict(record), indent=1)
        write_private(self._path(card, machine), content.encode())

    def _path(self, card: ModelCard, machine: Machine) -> Path:
        return self._folder / f"{machine.fingerprint}-{card.digest.removeprefix('sha256:')}.json"


def settings_for(card: ModelCard, settings: EngineSettings, records: Records) -> EngineSettings:
    """What `up` serves this model with: an engine that was named, else what measured
    best here, else what does best on most machines for a model of this kind."""
    if settings.default != "auto":
        return settings
    record = records.find(card, read_machine())
    if record is not None and record.best is not None:
        return record.best.settings(settings)
    others = "llama_cpp" if card.format == "gguf" else "vllm"
    return Candidate("openvino" if _is_shared_base(card) else others, {}).settings(settings)


def rank_limits(settings: EngineSettings, records: Records) -> Callable[[ModelCard], RankLimit]:
    """What the engine that `up` serves a base with takes of its adapters."""
    return lambda base: registry.rank_limit(settings_for(base, settings, records))


def candidates(card: ModelCard, workload: Workload, cores: int) -> list[Candidate]:
    """What is worth trying. Formats that lose quality are a person's choice, not ours:
    int4 is none of them."""
    threads = sorted({cores, max(1, cores // 2)}, reverse=True)
    found: list[Candidate] = []
    if _is_shared_base(card):
        found += [Candidate("openvino", {"threads": n}) for n in threads]
    if card.format == "gguf" and not workload.adapters:
        streams = {"streams": workload.streams}
        found += [Candidate("llama_cpp", {"threads": n, **streams}) for n in threads]
    return found


async def measure(
    model: LocalModel,
    workload: Workload,
    settings: EngineSettings,
    tried: Sequence[Candidate],
    cache: Path,
    progress: Progress,
) -> Record:
    trials = []
    for number, candidate in enumerate(tried):
        progress(f"Measuring {candidate}", number, len(tried))
        trials.append(await _trial(model, workload, settings, candidate, cache))
    return Record(
        model.card.digest,
        str(read_machine()),
        workload,
        time.time_ns() // 1000,
        tuple(trials),
    )


async def _trial(
    model: LocalModel,
    workload: Workload,
    settings: EngineSettings,
    candidate: Candidate,
    cache: Path,
) -> Trial:
    engine = registry.create(candidate.engine, candidate.settings(settings), cache)
    room = engine.capabilities(model).context_length
    if room is not None and room <= workload.prompt_tokens + workload.answer_tokens:
        return Trial(candidate, refused_because=f"its context holds {room} tokens")
    with tempfile.TemporaryDirectory(prefix="freehold-") as folder:
        try:
            async with asyncio.timeout(_TRIAL_S):
                return await _measured(engine, model, workload, candidate, Path(folder))
        except TimeoutError:
            return Trial(candidate, refused_because="it took too long")
        except UserError as error:
            return Trial(candidate, refused_because=error.message)


async def _measured(
    engine: Engine, model: LocalModel, workload: Workload, candidate: Candidate, folder: Path
) -> Trial:
    socket = folder / f"{secrets.token_hex(4)}.sock"
    begun = time.monotonic()
    process = await Process.start(engine.launch(model, str(socket)), folder / "engine.log")
    client = engine.connect(model, str(socket))
    try:
        await _until_serving(process, client)
        start_s = time.monotonic() - begun
        prompt = await _prompt(client, model.card.digest, workload.prompt_tokens)
        await _round(client, model.card.digest, prompt, Workload(1, answer_tokens=8))
        rounds = [await _round(client, model.card.digest, prompt, workload) for _ in range(_ROUNDS)]
        speed, ttft_ms = max(rounds)
        return Trial(candidate, speed, ttft_ms, start_s, process.rss_bytes or 0)
    finally:
        await client.close()
        await process.stop(_STOP_S)


async def _until_serving(process: Process, client: EngineClient) -> None:
    while True:
        if process.has_ended:
            raise UserError(Code.ENGINE_UNAVAILABLE, "it cannot load this model")
        try:
            await client.identity()
            return
        except UserError as error:
            if error.code is not Code.ENGINE_UNAVAILABLE:
                raise
        await asyncio.sleep(_POLL_S)


async def _prompt(client: EngineClient, model: str, tokens: int) -> str:
    """Words until they are as many tokens as asked for."""
    words = _words()
    text = next(words)
    while True:
        call = EngineCall(COMPLETIONS, model, {"prompt": text}, "autotune")
        if (await client.count_prompt_tokens(call) or tokens) >= tokens:
            return text
        text += "".join(next(words) for _ in range(max(1, tokens // 16)))


def _words() -> Iterator[str]:
    while True:
        yield from ("The", " river", " runs", " by", " the", " old", " mill", ".")


async def _round(
    client: EngineClient, model: str, prompt: str, workload: Workload
) -> tuple[float, float]:
    """Tokens a second of all streams together, and the median milliseconds to a first
    token. Numbers before the prompts keep the streams from being one."""
    begun = time.perf_counter()

    async def one(number: int) -> tuple[int, float]:
        body = {
            "prompt": f"{number} {prompt}",
            "max_tokens": workload.answer_tokens,
            "temperature": 0,
        }
        first, made = 0.0, 0
        async with client.stream(EngineCall(COMPLETIONS, model, body, "autotune")) as answer:
            while (chunks := await answer.read()) is not None:
                first = first or time.perf_counter() - begun
                for chunk in chunks:
                    made = (chunk.get("usage") or {}).get("completion_tokens", made)
        return made, first

    answers = await asyncio.gather(*map(one, range(workload.streams)))
    elapsed = time.perf_counter() - begun
    made = sum(tokens for tokens, _ in answers)
    return made / elapsed, 1000 * statistics.median(first for _, first in answers)


def _is_shared_base(card: ModelCard) -> bool:
    return card.task is Task.CHAT and card.architecture in SHARED_BASE


def _decoded(raw: dict[str, Any]) -> Record:
    trials = tuple(
        Trial(**{**trial, "candidate": Candidate(**trial["candidate"])}) for trial in raw["trials"]
    )
    return Record(**{**raw, "workload": Workload(**raw["workload"]), "trials": trials})
