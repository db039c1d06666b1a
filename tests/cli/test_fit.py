"""`freehold fit` on a home of its own: tables for people, JSON for machines, a sentence else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from freehold.catalog.pull import pull
from freehold.catalog.shape import facts_of
from freehold.catalog.store import ModelStore
from freehold.deploy.autotune import Candidate, Record, Records, Trial, Workload
from freehold.deploy.probe import read_machine
from freehold.deploy.speed import Speed, Speeds
from tests.cli.conftest import Run

TINY = Path(__file__).parents[1] / "engines/openvino/reference/tiny/llama"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    file = next(TINY.glob("llama-Q8_0.gguf"))
    pull(
        ModelStore(tmp_path / "home"),
        tmp_path / "home",
        f"file:{file}",
        progress=lambda *_: None,
        name="tiny",
        accept_licence="made by this test",
    )
    return tmp_path / "home"


def _rows(run: Run, *words: str) -> list[dict[str, Any]]:
    ended = run("fit", *words, "--json")
    assert ended.exit_code == 0, ended.output
    found: list[dict[str, Any]] = json.loads(ended.stdout)["rows"]
    return found


def _refusal(run: Run, *words: str) -> str:
    ended = run("fit", *words)
    assert ended.exit_code == 1
    return str(ended.stderr)


def test_each_accelerator_count_and_format_has_a_row(offline: Run) -> None:
    rows = _rows(offline, "llama-3.1-8b", "--on", "t4,h100_sxm")

    told = {(row["accelerator"], row["count"], row["format"]): row for row in rows}
    assert len(told) == len(rows) == 2 * 4 * 3
    assert not told["t4", 1, "16-bit"]["fits"], "16 GB of weights on 16 GB"
    assert told["t4", 2, "16-bit"]["fits"]
    assert ("t4", 1, "fp8") not in told, "it multiplies none"
    fast, slow = told["h100_sxm", 1, "fp8"], told["t4", 1, "int8"]
    assert fast["tokens_per_s_of_one"] > 3 * slow["tokens_per_s_of_one"]
    assert fast["ttft_ms_of_1000_tokens"] < slow["ttft_ms_of_1000_tokens"] / 3
    assert fast["tokens_per_s_of_all"] > 10 * fast["tokens_per_s_of_one"]
    assert fast["speed"] == "computed"


def test_the_parts_of_the_memory_add_up(offline: Run) -> None:
    (row,) = _rows(
        offline, "phi-4", "--on", "l40s", "--precision", "int4", "--adapters", "9", "--rank", "8"
    )[:1]

    parts = row["bytes_of_each_accelerator"]
    used = sum(parts[name] for name in ("weights", "adapters", "activations", "reserve", "free"))
    assert used == pytest.approx(parts["capacity"], rel=1e-6)
    assert parts["adapters"] > 0
    assert row["streams_that_fit"] == parts["free"] // parts["cache_of_a_stream"]


def test_more_streams_of_more_context_may_not_fit(offline: Run) -> None:
    words = ("llama-3.1-8b", "--on", "l4", "--precision", "fp8")

    assert _rows(offline, *words)[0]["fits"]
    assert not _rows(offline, *words, "--streams", "40")[0]["fits"]
    assert not _rows(offline, *words, "--context", "120000")[0]["fits"]
    told = offline("fit", *words, "--streams", "40").stdout
    assert "GB too little" in told


def test_a_cache_in_eight_bits_holds_twice_as_much(offline: Run) -> None:
    words = ("llama-3.1-70b", "--on", "h200_sxm", "--precision", "fp8", "--context", "8000")

    (wide, narrow) = (_rows(offline, *words, *more)[0] for more in ((), ("--cache-bits", "8")))

    assert narrow["streams_that_fit"] in (
        2 * wide["streams_that_fit"],
        2 * wide["streams_that_fit"] + 1,
    )
    assert narrow["longest_context_tokens"] == wide["longest_context_tokens"] * 2 or (
        narrow["longest_context_tokens"] == 131072
    )


def test_adapters_are_counted_on_this_machine_too(
    home: Path, commands: Callable[[Path], Run]
) -> None:
    (row, *_) = _rows(commands(home), "tiny", "--adapters", "3")

    assert row["bytes_of_each_accelerator"]["adapters"] > 0


def test_the_name_of_several_kinds_is_all_of_them(offline: Run) -> None:
    rows = _rows(offline, "phi-4", "--on", "t4,a100", "--precision", "int4")
    kinds = {each["accelerator"] for each in rows}
    assert kinds == {"t4", "a100_40gb", "a100_80gb_sxm", "a100_80gb_pcie"}


def test_names_that_are_not_there_are_answered_with_near_ones(offline: Run) -> None:
    assert "near it are llama-3.1-8b" in _refusal(offline, "llama-3.1-8")
    assert "near it are a100_80gb_sxm, a100_80gb" in _refusal(offline, "phi-4", "--on", "100_80")
    assert "near it are" not in _refusal(offline, "??")
    assert "bf16, fp8, int8, int4" in _refusal(offline, "phi-4", "--precision", "int3")
    assert "names nothing" in _refusal(offline, "phi-4", "--on", ",")
    assert "put its layers" in _refusal(offline, "granite-3.0-8b", "--on", "t4")


def test_a_file_of_facts_of_ones_own_is_used_and_its_mistakes_are_named(
    home: Path, commands: Callable[[Path], Run]
) -> None:
    run, words = commands(home), ("llama-3.2-1b", "--on", "cpu_epyc_9654", "--precision", "int8")
    assert "memory_gb" in _rows(run, *words)[0]["why_not"]
    (home / "facts").mkdir()
    file = home / "facts" / "hardware.yaml"
    file.write_text("accelerators:\n- id: cpu_epyc_9654\n  memory_gb: lots\n")
    assert f"{file}, line 3: `memory_gb` must be a number" in _refusal(run, *words)

    file.write_text("accelerators:\n- id: cpu_epyc_9654\n  memory_gb: 384\n")

    assert _rows(run, *words)[0]["fits"]


def test_without_a_measurement_of_this_machine_no_speed_is_told(
    home: Path, commands: Callable[[Path], Run]
) -> None:
    rows = _rows(commands(home), "tiny")

    assert [row["format"] for row in rows] == ["Q8_0 as stored", "int8 (openvino)"]
    assert all(row["fits"] for row in rows)
    assert [row["speed"] for row in rows] == [None, None]
    assert "`freehold bench --autotune` does" in commands(home)("fit", "tiny").stdout


def test_what_was_measured_here_stands_for_its_own_model_and_is_computed_from_for_others(
    home: Path, commands: Callable[[Path], Run]
) -> None:
    card, machine = ModelStore(home).get("tiny"), read_machine()
    Speeds(home / "cache", machine).keep(card, "openvino", Speed(8000.0, 400.0, 8, 1))
    run = commands(home)

    own, others = _rows(run, "tiny"), _rows(run, "llama-3.2-1b")

    by_format = {row["format"]: row for row in own}
    assert by_format["int8 (openvino)"]["speed"] == "measured"
    # 1,000 tokens at 8,000 a second, and what a longer prompt sees more of.
    assert 125 <= by_format["int8 (openvino)"]["ttft_ms_of_1000_tokens"] < 500
    assert by_format["Q8_0 as stored"]["computed_from"] == "tiny on openvino"
    assert [row["computed_from"] for row in others] == ["tiny on openvino"] * 2
    assert others[0]["tokens_per_s_of_one"] < 10 < own[0]["tokens_per_s_of_one"]
    assert "computed from tiny on openvino" in run("fit", "llama-3.2-1b").stdout


def test_each_engine_that_autotune_tried_has_its_own_speed(
    home: Path, commands: Callable[[Path], Run]
) -> None:
    card, machine = ModelStore(home).get("tiny"), read_machine()
    trials = (
        Trial(Candidate("openvino", {"threads": 2}), tokens_per_s=280.0, ttft_ms=400.0),
        Trial(Candidate("llama_cpp", {"threads": 1}), tokens_per_s=70.0, ttft_ms=2500.0),
        Trial(Candidate("llama_cpp", {"threads": 2}), tokens_per_s=110.0, ttft_ms=1300.0),
        Trial(Candidate("llama_cpp", {"threads": 3}), refused_because="it took too long"),
    )
    load = Workload(8, 64, 64)
    Records(home / "cache").keep(card, machine, Record(card.digest, "here", load, 1, trials))

    stored, eight_bits = _rows(commands(home), "tiny")

    assert stored["speed"] == eight_bits["speed"] == "measured"
    quicker = stored["ttft_ms_of_1000_tokens"] / eight_bits["ttft_ms_of_1000_tokens"]
    assert quicker == pytest.approx(1300 / 400, rel=0.05)
    assert stored["tokens_per_s_of_all"] < eight_bits["tokens_per_s_of_all"]


@pytest.mark.parametrize("kind", ["gguf", "safetensors"])
def test_a_stored_model_tells_its_shape_in_its_own_files(tmp_path: Path, kind: str) -> None:
    file = TINY / "llama-Q8_0.gguf" if kind == "gguf" else TINY
    store = ModelStore(tmp_path)
    card = pull(
        store,
        tmp_path,
        f"file:{file}",
        progress=lambda *_: None,
        name="tiny",
        accept_licence="ours",
    )

    shape = facts_of(card, store)

    config = json.loads((TINY / "config.json").read_text())
    assert shape.layers == config["num_hidden_layers"]
    assert shape.kv_heads == config["num_key_value_heads"]
    assert shape.heads == config["num_attention_heads"]
    assert shape.hidden == config["hidden_size"]
    assert shape.vocabulary is not None
    assert shape.params_b * 1e9 == card.parameters
