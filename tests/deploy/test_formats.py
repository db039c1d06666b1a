"""The choice of a format, with the real engine on a model small enough to measure fast."""

import hashlib
import subprocess
from pathlib import Path

import gguf as library
import numpy as np
import pytest

from freehold.catalog.pull import pull
from freehold.catalog.store import ModelStore
from freehold.core.errors import Code, UserError
from freehold.core.gguf import read_header
from freehold.deploy import formats

_WIDE, _LAYERS, _HEADS, _HIDDEN = 64, 2, 2, 128


# Printable ASCII, space and line end as a byte-level vocabulary writes them.
_TOKENS = [*(chr(code) for code in range(33, 127)), "\u0120", "\u010a"]


def _model(path: Path, kind: str) -> Path:
    """A whole llama with random weights, loadable by the engine."""
    tokens = [*_TOKENS, "<|end|>"]
    writer = library.GGUFWriter(path, "llama")
    writer.add_license("apache-2.0")
    writer.add_context_length(2048)
    writer.add_embedding_length(_WIDE)
    writer.add_block_count(_LAYERS)
    writer.add_feed_forward_length(_HIDDEN)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(_WIDE // _HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * len(_TOKENS) + [3])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(len(_TOKENS))
    writer.add_eos_token_id(len(_TOKENS))
    writer.add_add_bos_token(False)
    chance = np.random.default_rng(7)
    wanted = library.GGMLQuantizationType[kind]

    def matrix(name: str, rows: int, columns: int) -> None:
        values = chance.normal(scale=columns**-0.5, size=(rows, columns)).astype(np.float32)
        writer.add_tensor(name, library.quants.quantize(values, wanted), raw_dtype=wanted)

    matrix("token_embd.weight", len(tokens), _WIDE)
    for layer in range(_LAYERS):
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(f"blk.{layer}.{part}.weight", _WIDE, _WIDE)
        matrix(f"blk.{layer}.ffn_gate.weight", _HIDDEN, _WIDE)
        matrix(f"blk.{layer}.ffn_up.weight", _HIDDEN, _WIDE)
        matrix(f"blk.{layer}.ffn_down.weight", _WIDE, _HIDDEN)
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{norm}.weight", np.ones(_WIDE, np.float32))
    writer.add_tensor("output_norm.weight", np.ones(_WIDE, np.float32))
    matrix("output.weight", len(tokens), _WIDE)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy this machine is; and a few places of the text say as much as all."""
    monkeypatch.setattr(formats, "_MEASURE_S", 600.0)
    monkeypatch.setattr(formats, "_CALL_S", 300.0)
    monkeypatch.setattr(formats, "_POSITIONS", formats._FEWEST_POSITIONS)


@pytest.fixture
def fetched(tmp_path: Path) -> Path:
    (tmp_path / "pull" / "0").mkdir(parents=True)
    return _model(tmp_path / "pull" / "0" / "tiny.gguf", "Q4_1")


def test_the_fastest_format_within_the_bound_is_chosen_and_all_are_recorded(
    fetched: Path,
) -> None:
    told: list[str] = []

    served, conversion = formats.choose_format(
        fetched, read_header(fetched), lambda what, *_: told.append(what)
    )

    assert conversion is not None
    assert conversion.from_quantization == "Q4_1"
    assert conversion.from_digest == "sha256:" + hashlib.sha256(fetched.read_bytes()).hexdigest()
    assert conversion.quality_bound_kl_nats == formats.MAX_KL_NATS
    assert [trial.quantization for trial in conversion.trials] == ["Q4_1", "Q4_0", "Q8_0"]
    reference, coarse, fine = conversion.trials
    assert (reference.mean_kl_nats, reference.top1_agreement) == (0, 1)
    assert fine.mean_kl_nats < coarse.mean_kl_nats, "eight bits lose less than four"
    assert fine.refused_because is None
    (chosen,) = [trial for trial in conversion.trials if trial.chosen]
    assert chosen.refused_because is None
    assert chosen.mean_kl_nats <= formats.MAX_KL_NATS
    assert read_header(served).quantization == chosen.quantization
    assert all(trial.decode_tokens_per_s > 0 for trial in conversion.trials)
    assert {"Converting to Q4_0", "Comparing the formats' answers"} <= set(told)


def test_a_format_that_loses_too_much_is_never_chosen(
    fetched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "MAX_KL_NATS", 1e-12)

    served, conversion = formats.choose_format(fetched, read_header(fetched), lambda *_: None)

    assert conversion is not None
    assert served == fetched
    assert [trial.chosen for trial in conversion.trials] == [True, False, False]
    assert all(trial.refused_because for trial in conversion.trials[1:])


def test_a_machine_that_is_too_busy_serves_the_file_as_it_came(
    fetched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "_MEASURE_S", 0.0)
    told: list[str] = []

    chosen = formats.choose_format(
        fetched, read_header(fetched), lambda what, *_: told.append(what)
    )

    assert chosen == (fetched, None)
    assert "too busy" in told[-1]


def test_a_large_file_is_served_as_it_came(fetched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "_MAX_FILE_BYTES", 1)
    assert formats.choose_format(fetched, read_header(fetched), lambda *_: None) == (fetched, None)


def test_a_sound_header_around_weights_that_no_engine_loads_is_refused(tmp_path: Path) -> None:
    from tests.catalog.making import gguf_bytes, write

    source, home = write(tmp_path / "hollow.gguf", gguf_bytes()), tmp_path / "home"
    store = ModelStore(home)

    with pytest.raises(UserError) as refused:
        pull(
            store,
            home,
            f"file:{source}",
            progress=lambda *_: None,
            choose_format=formats.choose_format,
        )

    assert refused.value.code is Code.FILE_INVALID
    assert store.list() == []


def test_what_is_chosen_is_what_is_stored(fetched: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    store = ModelStore(home)

    card = pull(
        store,
        home,
        f"file:{fetched}",
        progress=lambda *_: None,
        choose_format=formats.choose_format,
    )

    assert card.conversion is not None
    (chosen,) = [trial for trial in card.conversion.trials if trial.chosen]
    assert card.quantization == chosen.quantization
    assert card.size_bytes == chosen.size_bytes
    assert store.get("tiny") == card
    store.verify(card)


def test_conversion_happens_without_our_environment(
    fetched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "a secret")
    seen: list[dict[str, str]] = []
    run = subprocess.run

    def watched(*words: object, **options: object) -> object:
        seen.append(options["env"])  # type: ignore[arg-type]
        return run(*words, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "run", watched)
    formats._requantize(fetched, fetched.with_name("made.gguf"), "Q8_0")

    assert seen
    assert all("HF_TOKEN" not in environment for environment in seen)
