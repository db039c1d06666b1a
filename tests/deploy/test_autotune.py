"""Engines are measured on this machine, and what was best there is used."""

from dataclasses import replace
from pathlib import Path

import pytest

from freehold.config.schema import EngineSettings
from freehold.core.model import ModelCard, Task
from freehold.deploy.autotune import (
    Candidate,
    Record,
    Records,
    Trial,
    Workload,
    candidates,
    measure,
    settings_for,
)
from freehold.deploy.probe import Machine, read_machine
from freehold.engines.base import LocalModel
from tests.harness import card

_AUTO = EngineSettings(default="auto")
_FAKE = Candidate("fake", {})


def _record(*trials: Trial) -> Record:
    return Record(card().digest, "a machine", Workload(), 1, trials)


def _llama() -> ModelCard:
    return replace(card(), architecture="llama", task=Task.CHAT)


async def test_every_candidate_is_started_and_gets_the_load(tmp_path: Path) -> None:
    told: list[str] = []
    record = await measure(
        LocalModel(card(), tmp_path / "none"),
        Workload(streams=3, prompt_tokens=8, answer_tokens=10),
        EngineSettings(),
        [_FAKE, _FAKE],
        tmp_path,
        lambda what, done, total: told.append(f"{what} {done}/{total}"),
    )
    assert told == ["Measuring fake 0/2", "Measuring fake 1/2"]
    assert record.best == _FAKE
    for trial in record.trials:
        assert trial.refused_because is None
        assert min(trial.tokens_per_s, trial.ttft_ms, trial.start_s, trial.rss_bytes) > 0


async def test_an_engine_that_cannot_load_the_model_is_told_and_never_chosen(
    tmp_path: Path,
) -> None:
    broken = EngineSettings(fake_flags=("--fail-start", "9", "--fail-start-file", f"{tmp_path}/n"))
    record = await measure(
        LocalModel(card(), tmp_path / "none"), Workload(), broken, [_FAKE], tmp_path,
        lambda *_: None,
    )  # fmt: skip
    assert [trial.refused_because for trial in record.trials] == ["it cannot load this model"]
    assert record.best is None


async def test_a_load_that_does_not_fit_the_context_is_refused(tmp_path: Path) -> None:
    workload = Workload(prompt_tokens=card().context_length)
    record = await measure(
        LocalModel(card(), tmp_path / "none"), workload, EngineSettings(), [_FAKE], tmp_path,
        lambda *_: None,
    )  # fmt: skip
    assert "context" in str(record.trials[0].refused_because)


def test_a_record_is_found_again_on_the_same_machine_only(tmp_path: Path) -> None:
    records, here = Records(tmp_path), read_machine()
    record = _record(Trial(Candidate("llama_cpp", {"threads": 3}), 5.0, 1.0, 1.0, 7))
    records.keep(card(), here, record)
    assert records.find(card(), here) == record
    assert records.find(card(), Machine("another", 64, 1, 1)) is None
    assert records.find(replace(card(), digest="sha256:" + "9" * 64), here) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"trials": [{}]}'])
def test_a_damaged_record_is_measured_again(tmp_path: Path, content: bytes) -> None:
    records, here = Records(tmp_path), read_machine()
    records.keep(card(), here, _record())
    (path,) = (tmp_path / "autotune").iterdir()
    path.write_bytes(content)
    assert records.find(card(), here) is None


def test_what_measured_best_is_used_with_its_options(tmp_path: Path) -> None:
    records = Records(tmp_path)
    trials = (
        Trial(Candidate("openvino", {"threads": 1}), tokens_per_s=20.0),
        Trial(Candidate("llama_cpp", {"threads": 3}), tokens_per_s=30.0),
        Trial(Candidate("openvino", {"threads": 2}), refused_because="it took too long"),
    )
    records.keep(_llama(), read_machine(), _record(*trials))
    found = settings_for(_llama(), _AUTO, records)
    assert (found.default, found.llama_cpp.threads) == ("llama_cpp", 3)


def test_an_engine_that_was_named_is_used_whatever_was_measured(tmp_path: Path) -> None:
    records = Records(tmp_path)
    best = Trial(Candidate("openvino", {}), tokens_per_s=1.0)
    records.keep(_llama(), read_machine(), _record(best))
    named = EngineSettings(default="llama_cpp")
    assert settings_for(_llama(), named, records) == named


@pytest.mark.parametrize(
    ("changes", "engine"),
    [
        ({"architecture": "llama"}, "openvino"),
        ({"architecture": "qwen3"}, "openvino"),
        ({"architecture": "gemma3"}, "llama_cpp"),
        ({"architecture": "gemma2", "format": "safetensors"}, "vllm"),
        ({"architecture": "llama", "task": Task.EMBEDDINGS}, "llama_cpp"),
    ],
)
def test_without_a_measurement_the_kind_of_model_decides(
    tmp_path: Path, changes: dict[str, object], engine: str
) -> None:
    model = replace(card(), **changes)  # type: ignore[arg-type]
    assert settings_for(model, _AUTO, Records(tmp_path)).default == engine


def test_engines_that_cannot_mix_adapters_are_not_tried_for_a_load_that_does() -> None:
    tried = candidates(_llama(), Workload(adapters=True), 4)
    assert {candidate.engine for candidate in tried} == {"openvino"}
    both = candidates(_llama(), Workload(), 4)
    assert {candidate.engine for candidate in both} == {"openvino", "llama_cpp"}
    assert {candidate.options["threads"] for candidate in both} == {4, 2}
