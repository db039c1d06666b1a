"""Which format of a model is fastest on this machine, at what cost in quality.

Kernels differ by format and processor: a prebuilt llama.cpp runs Q4_1 at about half
the speed of Q4_0 on AVX2. So the fetched file and its conversions are measured here,
and the fastest that stays within the quality bound is served.
"""

import math
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx2

from freehold.catalog.blobs import digest_of
from freehold.catalog.gguf import Header, read_header
from freehold.catalog.sources import Progress
from freehold.core.errors import Code, UserError
from freehold.core.model import Conversion, FormatTrial
from freehold.deploy.probe import read_machine
from freehold.engines import child
from freehold.engines.llama_cpp import usable_cores

# Mean KL divergence of next-token distributions from the fetched file's. 0.1 nats is
# about what one step of 4-bit rounding costs a small model; see the model's card for
# what was measured.
MAX_KL_NATS = 0.1
_CANDIDATES = ("Q4_0", "Q8_0")
_MAX_FILE_BYTES = 1_000_000_000  # beyond, converting and measuring takes minutes
_POSITIONS, _TOP = 96, 64
_ROUNDS, _TOKENS = 3, 32
# What a format is ranked by: the time of one typical request.
_TYPICAL_PROMPT, _TYPICAL_ANSWER = 256, 128
_START_S, _CALL_S = 60.0, 60.0


@dataclass(slots=True)
class _Candidate:
    quantization: str
    path: Path
    client: httpx2.Client
    decode: float = 0.0
    prefill: float = 0.0
    kl: float = 0.0
    agreement: float = 1.0

    @property
    def request_s(self) -> float:
        return _TYPICAL_PROMPT / self.prefill + _TYPICAL_ANSWER / self.decode


def choose_format(
    fetched: Path, header: Header, progress: Progress
) -> tuple[Path, Conversion | None]:
    """The file to serve and how it was chosen; the fetched file itself, with no
    conversion, when it is too large to measure in seconds."""
    if fetched.stat().st_size > _MAX_FILE_BYTES:
        return fetched, None
    text = (files("freehold.deploy") / "trial.txt").read_text()
    with ExitStack() as stack:
        paths = {header.quantization: fetched, **_converted(fetched, header, progress)}
        candidates = []
        for name, path in paths.items():
            progress(f"Starting {name}", 0, 0)
            candidates.append(_Candidate(name, path, stack.enter_context(_engine(path))))
        _measure_quality(candidates, text, progress)
        _measure_speed(candidates, text, progress)
    within = [entry for entry in candidates if entry.kl <= MAX_KL_NATS]
    best = min(within, key=lambda entry: entry.request_s)
    trials = tuple(_trial(entry, entry is best) for entry in candidates)
    conversion = Conversion(
        from_digest=digest_of(fetched),
        from_quantization=header.quantization,
        quality_bound_kl_nats=MAX_KL_NATS,
        machine=str(read_machine()),
        trials=trials,
    )
    return best.path, conversion


def _converted(fetched: Path, header: Header, progress: Progress) -> dict[str, Path]:
    made: dict[str, Path] = {}
    for name in _CANDIDATES:
        if name == header.quantization:
            continue
        progress(f"Converting to {name}", 0, 0)
        target = fetched.parent.parent / f"{fetched.stem}.{name}.gguf"
        ended = subprocess.run(
            [sys.executable, "-m", "freehold.catalog.requantize", fetched, target, name],
            env=child.clean_environment(),
            capture_output=True,
            check=False,
        )
        if ended.returncode == 0:  # a format that cannot be converted stays as it is
            read_header(target)
            made[name] = target
    return made


@contextmanager
def _engine(path: Path) -> Iterator[httpx2.Client]:
    """A private llama.cpp process for this file alone."""
    with tempfile.TemporaryDirectory(prefix="freehold-") as folder:
        socket = f"{folder}/{secrets.token_hex(4)}.sock"
        command = [
            sys.executable, "-m", "freehold.engines.llama_cpp_worker", f"--model={path}",
            f"--digest={digest_of(path)}", f"--socket={socket}", "--streams=1", "--context=1024",
            f"--threads={usable_cores()}", "--reuse-prompts",
        ]  # fmt: skip
        process = subprocess.Popen(
            command,
            env=child.clean_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        transport = httpx2.HTTPTransport(uds=socket)
        try:
            with httpx2.Client(
                transport=transport, base_url="http://engine", timeout=_CALL_S
            ) as client:
                _await_start(client, process)
                yield client
        finally:
            process.kill()
            process.communicate()


def _await_start(client: httpx2.Client, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if client.get("/health").status_code == 200:
                return
        except httpx2.HTTPError:
            pass
        time.sleep(0.05)
    raise UserError(
        Code.FILE_INVALID, "The engine cannot load this model: pull another file of it."
    )


def _measure_quality(candidates: list[_Candidate], text: str, progress: Progress) -> None:
    """Teacher forcing: the same text for all, the next-token distribution after each
    prefix, compared with the fetched file's."""
    reference, *others = candidates
    tokens = _call(reference.client, "/tokenize", content=text, add_special=True)["tokens"]
    ends = range(8, min(len(tokens), 8 + _POSITIONS))
    expected = [_distribution(reference.client, tokens[:end]) for end in ends]
    for entry in others:
        total, same = 0.0, 0
        for number, (end, wanted) in enumerate(zip(ends, expected, strict=True)):
            found = _distribution(entry.client, tokens[:end])
            total += _kl(wanted, found)
            same += max(wanted, key=wanted.__getitem__) == max(found, key=found.__getitem__)
            progress(f"Comparing {entry.quantization} with the fetched file", number, len(ends))
        entry.kl, entry.agreement = total / len(ends), same / len(ends)


def _distribution(client: httpx2.Client, tokens: list[int]) -> dict[int, float]:
    answer = _call(
        client, "/completion", prompt=tokens, n_predict=1, n_probs=_TOP, temperature=0,
        cache_prompt=True,
    )  # fmt: skip
    top = answer["completion_probabilities"][0]["top_logprobs"]
    return {entry["id"]: entry["logprob"] for entry in top}


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


def _measure_speed(candidates: list[_Candidate], text: str, progress: Progress) -> None:
    """In turns, so that a machine that slows down does so for all; the best of the
    turns counts, because noise only ever slows."""
    for number in range(_ROUNDS):
        for entry in candidates:
            progress(f"Measuring {entry.quantization}", number, _ROUNDS)
            timings = _call(
                entry.client, "/completion", prompt=text, n_predict=_TOKENS, temperature=0,
                cache_prompt=False, ignore_eos=True,
            )["timings"]  # fmt: skip
            entry.decode = max(entry.decode, timings["predicted_per_second"])
            entry.prefill = max(entry.prefill, timings["prompt_per_second"])


def _call(client: httpx2.Client, path: str, **body: Any) -> Any:
    try:
        response = client.post(path, json=body)
        response.raise_for_status()
    except httpx2.HTTPError:
        raise UserError(
            Code.FILE_INVALID, "The engine failed on this model: pull another file of it."
        ) from None
    return response.json()


def _trial(entry: _Candidate, chosen: bool) -> FormatTrial:
    trial = FormatTrial(
        quantization=entry.quantization,
        decode_tokens_per_s=round(entry.decode, 1),
        prefill_tokens_per_s=round(entry.prefill, 1),
        mean_kl_nats=round(entry.kl, 5),
        top1_agreement=round(entry.agreement, 4),
        size_bytes=entry.path.stat().st_size,
        chosen=chosen,
    )
    if entry.kl > MAX_KL_NATS:
        return replace(trial, refused_because=f"loses more than {MAX_KL_NATS} nats")
    return trial
