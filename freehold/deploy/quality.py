"""What the formats of the openvino engine cost in quality, measured on this machine in a
process of its own that ends when this one does."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from freehold.catalog.fetched import Progress
from freehold.config.schema import OpenVinoSettings
from freehold.core.errors import Code, UserError
from freehold.core.model import MAX_KL_NATS, ModelCard, Quality, QualityTrial
from freehold.deploy.probe import read_machine
from freehold.engines import child
from freehold.engines.cores import usable_cores

_ENGINE = "openvino"


def measure_quality(files: Mapping[str, Path], tokens: int | None, progress: Progress) -> Quality:
    """`files` are the model's by name. Raises `UserError` for a model that the engine
    cannot compute, and when the measuring process fails."""
    found = [line["measured"] for line in _lines(files, tokens, progress) if "measured" in line]
    machine = read_machine()
    return Quality(
        engine=_ENGINE,
        machine=str(machine),
        machine_fingerprint=machine.fingerprint,
        measured_at_us=time.time_ns() // 1000,
        scored_tokens=found[0]["scored_tokens"],
        quality_bound_kl_nats=MAX_KL_NATS,
        trials=tuple(_trial(measured) for measured in found),
    )


def measured_of(card: ModelCard, engine: str, settings: OpenVinoSettings) -> QualityTrial | None:
    """What the formats lose that this engine is to serve the model in, if that was measured."""
    quality = card.quality
    if quality is None or engine != quality.engine:
        return None
    kv_cache = "f32" if settings.weights == "float32" else settings.kv_cache
    wanted = settings.weights, kv_cache
    found = (each for each in quality.trials if (each.weights, each.kv_cache) == wanted)
    return next(found, None)


def _lines(
    files: Mapping[str, Path], tokens: int | None, progress: Progress
) -> Iterator[dict[str, Any]]:
    command = [
        sys.executable, "-m", "freehold.engines.openvino.measure_worker",
        *(f"--file={name}={path}" for name, path in files.items()),
        f"--threads={usable_cores()}", *([f"--tokens={tokens}"] if tokens else []),
    ]  # fmt: skip
    with subprocess.Popen(
        command,
        env=child.clean_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            for raw in process.stdout or ():
                line: dict[str, Any] = orjson.loads(raw)
                if "error" in line:
                    raise UserError(Code(line["error"]["code"]), line["error"]["message"])
                if "doing" in line:
                    progress(line["doing"], line["done"], line["of"])
                yield line
            process.wait()
        finally:
            process.kill()
    if process.returncode == -signal.SIGKILL:
        raise UserError(
            Code.ENGINE_FAILED,
            "The measuring process was killed, as happens when memory runs out: it needs room "
            "for the weights in float32; free some, or measure a smaller model.",
        )
    if process.returncode:
        raise UserError(
            Code.ENGINE_FAILED,
            f"The measuring process ended with code {process.returncode}: verify the model with "
            "`freehold model verify`, and report this if it is sound.",
        )


def _trial(measured: dict[str, Any]) -> QualityTrial:
    loss = measured["loss"]
    return QualityTrial(
        weights=measured["weights"],
        kv_cache=measured["kv_cache"],
        perplexity=round(loss["perplexity"], 3),
        mean_kl_nats=round(loss["mean_kl_nats"], 5),
        p99_kl_nats=round(loss["p99_kl_nats"], 5),
        top1_agreement=round(loss["top1_agreement"], 4),
        weights_bytes=measured["weights_bytes"],
        kv_bytes_per_token=measured["kv_bytes_per_token"],
        decode_tokens_per_s=round(measured["decode_tokens_per_s"], 1),
        decode_tokens_per_s_of_8=round(measured["decode_tokens_per_s_of_8"], 1),
        exceeds_bound=loss["mean_kl_nats"] > MAX_KL_NATS,
    )
