"""Which format of a model is fastest on this machine, at what cost in quality.

Kernels differ by format and processor: a prebuilt llama.cpp reads prompts in Q4_1 at
about half the speed of Q4_0 on AVX2. So the fetched file and its conversions are
measured here, and the fastest that stays within the quality bound is served. A busy
machine is given no more time than a quiet one: what cannot be measured in time is not
chosen, and when that is everything, the fetched file is served as it came.
"""

import math
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx2

from freehold.catalog.blobs import digest_of
from freehold.catalog.fetched import Progress
from freehold.core.errors import Code, UserError
from freehold.core.gguf import Header, read_header
from freehold.core.model import MAX_KL_NATS, Conversion, FormatTrial
from freehold.deploy.probe import read_machine
from freehold.engines import child
from freehold.engines.cores import usable_cores

_CANDIDATES = ("Q4_0", "Q8_0")
_MAX_FILE_BYTES = 1_000_000_000  # beyond, converting and measuring takes minutes
_POSITIONS, _FEWEST_POSITIONS, _TOP = 96, 32, 64
_ROUNDS, _TOKENS = 3, 32
# What a format is ranked by: the time of one typical request.
_TYPICAL_PROMPT, _TYPICAL_ANSWER = 256, 128
_CONVERT_S, _START_S, _CALL_S = 60.0, 60.0, 20.0
_MEASURE_S = 18.0  # of that, half for quality


@dataclass(slots=True)
class _Candidate:
    quantization: str
    path: Path
    client: httpx2.Client
    decode: float = 0.0
    prefill: float = 0.0
    kl: float = 0.0
    agreement: float = 1.0
    refused_because: str | None = None

    @property
    def request_s(self) -> float:
        return _TYPICAL_PROMPT / self.prefill + _TYPICAL_ANSWER / self.decode

    @property
    def is_measured(self) -> bool:
        return self.decode > 0 and self.prefill > 0


class _TooSlowError(Exception):
    """A measurement did not end in its time."""


def choose_format(
    fetched: Path, header: Header, progress: Progress
) -> tuple[Path, Conversion | None]:
    """The file to serve and how it was chosen; the fetched file itself, with no
    conversion, when it is too large or this machine too busy to measure in seconds."""
    if fetched.stat().st_size > _MAX_FILE_BYTES:
        return fetched, None
    text = (files("freehold.deploy") / "trial.txt").read_text()
    with ExitStack() as stack:
        candidates = []
        for name, path in {
            header.quantization: fetched,
            **_converted(fetched, header, progress),
        }.items():
            progress(f"Starting {name}", 0, 0)
            candidates.append(
                _Candidate(name, path, stack.enter_context(engine(path, "--reuse-prompts")))
            )
        begun = time.monotonic()
        try:
            _measure_quality(candidates, text, begun + _MEASURE_S / 2, progress)
            _measure_speed(candidates, text, begun + _MEASURE_S, progress)
        except _TooSlowError:
            progress("This machine is too busy to measure formats: serving it as fetched", 0, 0)
            return fetched, None
    best = min(
        (entry for entry in candidates if not entry.refused_because),
        key=lambda entry: entry.request_s,
    )
    conversion = Conversion(
        from_digest=digest_of(fetched),
        from_quantization=header.quantization,
        quality_bound_kl_nats=MAX_KL_NATS,
        machine=str(read_machine()),
        trials=tuple(_trial(entry, entry is best) for entry in candidates),
    )
    return best.path, conversion


def _converted(fetched: Path, header: Header, progress: Progress) -> dict[str, Path]:
    made: dict[str, Path] = {}
    for name in _CANDIDATES:
        if name == header.quantization:
            continue
        progress(f"Converting to {name}", 0, 0)
        target = fetched.parent.parent / f"{fetched.stem}.{name}.gguf"
        if _requantize(fetched, target, name):
            made[name] = target
    return made


def _requantize(fetched: Path, target: Path, name: str) -> bool:
    """Whether there is a sound file now; a format that cannot be made is no candidate."""
    try:
        ended = subprocess.run(
            [sys.executable, "-I", "-m", "freehold.catalog.requantize", fetched, target, name],
            env=child.clean_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_CONVERT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    if ended.returncode:
        return False
    read_header(target)
    return True


@contextmanager
def engine(path: Path, *options: str, context: int = 1024) -> Iterator[httpx2.Client]:
    """A private llama.cpp process for this file alone, for measurements."""
    with tempfile.TemporaryDirectory(prefix="freehold-") as folder:
        address = f"{folder}/{secrets.token_hex(4)}.sock"
        command = [
            sys.executable, "-m", "freehold.engines.llama_cpp_worker", f"--model={path}",
            f"--digest={digest_of(path)}", f"--socket={address}", "--streams=1",
            f"--context={context}", f"--threads={usable_cores()}", *options,
        ]  # fmt: skip
        process = subprocess.Popen(
            command,
            env=child.clean_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        transport = httpx2.HTTPTransport(uds=address)
        try:
            with httpx2.Client(
                transport=transport, base_url="http://engine", timeout=_CALL_S
            ) as client:
                _await_start(client, process, address)
                yield client
        finally:
            process.kill()
            process.communicate()


def _await_start(client: httpx2.Client, process: "subprocess.Popen[bytes]", address: str) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if _answers(address) and client.get("/health").status_code == 200:
                return
        except httpx2.HTTPError:
            pass
        time.sleep(0.05)
    raise UserError(
        Code.FILE_INVALID, "The engine cannot load this model: pull another file of it."
    )


def _answers(address: str) -> bool:
    """Asked without the client, which leaves a socket open when nobody answers."""
    with socket.socket(socket.AF_UNIX) as attempt:
        return attempt.connect_ex(address) == 0


def _measure_quality(
    candidates: list[_Candidate], text: str, deadline_s: float, progress: Progress
) -> None:
    """Teacher forcing: the same text for all, the next-token distribution after each
    prefix, compared with the fetched file's. All go forward together, so that when
    the time is over each has been compared at the same places."""
    reference, *others = candidates
    tokens = _call(reference.client, "/tokenize", content=text, add_special=True)["tokens"]
    ends = range(8, min(len(tokens), 8 + _POSITIONS))
    compared = 0
    totals, same = [0.0] * len(others), [0] * len(others)
    for end in ends:
        if time.monotonic() > deadline_s:
            break
        wanted, *each = [_distribution(entry.client, tokens[:end]) for entry in candidates]
        if not wanted or not all(each):
            continue
        for number, found in enumerate(each):
            totals[number] += _kl(wanted, found)
            same[number] += _top(wanted) == _top(found)
        compared += 1
        progress("Comparing the formats' answers", compared, len(ends))
    if compared < min(_FEWEST_POSITIONS, len(ends)):
        raise _TooSlowError
    for number, entry in enumerate(others):
        entry.kl, entry.agreement = totals[number] / compared, same[number] / compared
        if entry.kl > MAX_KL_NATS:
            entry.refused_because = f"loses more than {MAX_KL_NATS} nats"


def _top(distribution: dict[int, float]) -> int:
    return max(distribution, key=distribution.__getitem__)


def _distribution(client: httpx2.Client, tokens: list[int]) -> dict[int, float]:
    """Token to log probability; empty where the engine tells none, as it does when the
    likeliest token is a part of a character."""
    answer = _call(
        client, "/completion", prompt=tokens, n_predict=1, n_probs=_TOP, temperature=0,
        cache_prompt=True,
    )  # fmt: skip
    first: dict[str, Any] = next(iter(answer.get("completion_probabilities", ())), {})
    return {entry["id"]: entry["logprob"] for entry in first.get("top_logprobs", ())}


def _kl(wanted: dict[int, float], found: dict[int, float]) -> float:
    """Over the likeliest tokens of `wanted` and one bucket for all the rest. A token
    missing from `found` is as unlikely as the last one listed there."""
    least = min(found.values())
    total, rest_p, rest_q = 0.0, 1.0, 1.0
    for token, log_p in wanted.items():
        log_q = found.get(token, least)
        p, q = math.exp(log_p), math.exp(log_q)
        total += p * (log_p - log_q)
        rest_p, rest_q = rest_p - p, rest_q - q
    if rest_p > 1e-9:
        total += rest_p * math.log(rest_p / max(rest_q, 1e-9))
    return max(total, 0.0)


def _measure_speed(
    candidates: list[_Candidate], text: str, deadline_s: float, progress: Progress
) -> None:
    """In turns, so that a machine that slows down does so for all; the best of the
    turns counts, because noise only ever slows. What is refused already is measured
    once, to be shown."""
    for number in range(_ROUNDS):
        for entry in candidates:
            if number and entry.refused_because:
                continue
            if time.monotonic() > deadline_s:
                break
            progress(f"Measuring {entry.quantization}, round {number + 1}", 0, 0)
            timings = _call(
                entry.client, "/completion", prompt=text, n_predict=_TOKENS, temperature=0,
                cache_prompt=False, ignore_eos=True,
            )["timings"]  # fmt: skip
            entry.decode = max(entry.decode, timings["predicted_per_second"])
            entry.prefill = max(entry.prefill, timings["prompt_per_second"])
    if not all(entry.is_measured for entry in candidates if not entry.refused_because):
        raise _TooSlowError


def _call(client: httpx2.Client, path: str, **body: Any) -> Any:
    try:
        response = client.post(path, json=body)
        response.raise_for_status()
    except httpx2.TimeoutException:
        raise _TooSlowError from None
    except httpx2.HTTPError:
        raise UserError(
            Code.FILE_INVALID, "The engine failed on this model: pull another file of it."
        ) from None
    return response.json()


def _trial(entry: _Candidate, chosen: bool) -> FormatTrial:
    return FormatTrial(
        quantization=entry.quantization,
        decode_tokens_per_s=round(entry.decode, 1),
        prefill_tokens_per_s=round(entry.prefill, 1),
        mean_kl_nats=round(entry.kl, 5),
        top1_agreement=round(entry.agreement, 4),
        size_bytes=entry.path.stat().st_size,
        chosen=chosen,
        refused_because=entry.refused_because,
    )
