"""Adapters as they are read: checked wholly, refused by name, and exact in memory."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.core.errors import Code, UserError
from freehold.engines.openvino.adapters import Adapter, bfloat16, read_adapter
from tests.engines.openvino import lora_files as lora

MAX_RANK = 16
Broken = Callable[[dict[str, Any], lora.Content], None]


def _read(files: Any, kind: Any = "f32", max_rank: int = MAX_RANK) -> Adapter:
    return read_adapter(files, lora.SHAPE, max_rank, kind)


def _refusal(files: Any) -> UserError:
    with pytest.raises(UserError) as refused:
        _read(files)
    return refused.value


def _said(**changed: Any) -> Broken:
    return lambda settings, content: settings.update(changed)


def _without(*names: str) -> Broken:
    return lambda settings, content: [settings.pop(name) for name in names] and None


def _tensor(name: str, shape: tuple[int, ...], dtype: str = "F32") -> Broken:
    values = lora.as_bits(np.ones(shape, np.float32), dtype)
    return lambda settings, content: content.update({name: (dtype, values)})


def _no_tensor(*names: str) -> Broken:
    return lambda settings, content: [content.pop(name) for name in names] and None


def _value(name: str, value: float, dtype: str = "F32") -> Broken:
    def change(settings: dict[str, Any], content: lora.Content) -> None:
        values = lora.values_of(*content[name]).copy()
        values[1, 2] = value
        with np.errstate(over="ignore"):
            content[name] = (dtype, lora.as_bits(values, dtype))

    return change


Q_A, Q_B = lora.key(0, "q_proj", "A"), lora.key(0, "q_proj", "B")
UP_A, UP_B = lora.key(1, "up_proj", "A"), lora.key(1, "up_proj", "B")
BASE = "base_model.model.model"

BAD: dict[str, tuple[Broken, str]] = {
    "another method": (_said(peft_type="IA3"), "peft_type is 'IA3'"),
    "no method": (_without("peft_type"), "peft_type is None"),
    "method as list": (_said(peft_type=["LORA"]), "peft_type is ['LORA']"),
    "another task": (_said(task_type="SEQ_CLS"), "task_type is 'SEQ_CLS'"),
    "DoRA": (_said(use_dora=True), "'use_dora' is not supported"),
    "DoRA only in tensors": (
        _tensor(f"{BASE}.layers.0.self_attn.q_proj.lora_magnitude_vector", (16,)),
        "DoRA",
    ),
    "biases said": (_said(bias="all"), "trains biases"),
    "LoRA biases said": (_said(lora_bias=True), "'lora_bias' is not supported"),
    "a bias": (_tensor(f"{BASE}.layers.0.self_attn.q_proj.base_layer.bias", (16,)), "a bias"),
    "a bias of B": (_tensor(f"{BASE}.layers.0.self_attn.q_proj.lora_B.bias", (16,)), "a bias"),
    "whole modules": (_said(modules_to_save=["lm_head"]), "'modules_to_save' is not supported"),
    "a whole head": (_tensor("base_model.model.lm_head.weight", (32, 16)), "the head"),
    "LoRA of the head": (_tensor("base_model.model.lm_head.lora_A.weight", (4, 16)), "the head"),
    "a whole embedding": (_tensor(f"{BASE}.embed_tokens.weight", (32, 16)), "the embedding"),
    "LoRA of the embedding": (
        _tensor(f"{BASE}.embed_tokens.lora_embedding_A", (4, 32)),
        "the embedding",
    ),
    "single tokens": (_said(trainable_token_indices=[1, 2]), "'trainable_token_indices'"),
    "whole parameters": (_said(target_parameters=["experts"]), "'target_parameters'"),
    "Megatron": (_said(megatron_config={"a": 1}), "'megatron_config' is not supported"),
    "turned weights": (_said(fan_in_fan_out=True), "'fan_in_fan_out' is not supported"),
    "repeated layers": (_said(layer_replication=[[0, 1]]), "'layer_replication'"),
    "activated LoRA": (_said(alora_invocation_tokens=[1]), "'alora_invocation_tokens'"),
    "something newer": (_said(use_tomorrow=True), "'use_tomorrow' is not supported"),
    "PiSSA": (_said(init_lora_weights="pissa"), "may change the base"),
    "fast PiSSA": (_said(init_lora_weights="pissa_niter_4"), "may change the base"),
    "OLoRA": (_said(init_lora_weights="olora"), "may change the base"),
    "CorDA": (_said(init_lora_weights="corda"), "may change the base"),
    "LoftQ": (_said(init_lora_weights="loftq"), "may change the base"),
    "a beginning that is 1": (_said(init_lora_weights=1), "may change the base"),
    "rank zero": (_said(r=0), "its r is not"),
    "rank as text": (_said(r="4"), "its r is not"),
    "rank true": (_said(r=True), "its r is not"),
    "no rank": (_without("r"), "its r is not"),
    "no alpha": (_without("lora_alpha"), "lora_alpha is not"),
    "alpha zero": (_said(lora_alpha=0), "lora_alpha is not"),
    "alpha endless": (_said(lora_alpha=1e300), "lora_alpha is not"),
    "root as text": (_said(use_rslora="yes"), "use_rslora"),
    "rank pattern as list": (_said(rank_pattern=["q_proj"]), "rank_pattern is no list"),
    "rank pattern negative": (_said(rank_pattern={"q_proj": -1}), "rank_pattern gives"),
    "alpha pattern as text": (_said(alpha_pattern={"q_proj": "8"}), "alpha_pattern gives"),
    "pattern no expression": (_said(rank_pattern={"q_proj(": 4}), "rank_pattern is no list"),
    "pattern without end": (_said(rank_pattern={"(a+)+": 4}), "rank_pattern is no list"),
    "target elsewhere": (_said(target_modules=["q_proj", "router"]), "'router'"),
    "target embedding": (_said(target_modules=["embed_tokens"]), "'embed_tokens'"),
    "target number": (_said(target_modules=[1]), "no list of names"),
    "target object": (_said(target_modules={"q_proj": 1}), "no list of names"),
    "target not named": (
        _said(target_modules=["q_proj"]),
        "model.layers.0.self_attn.k_proj, which target_modules does not name",
    ),
    "target without tensors": (
        _no_tensor(*(lora.key(i, "o_proj", side) for i in (0, 1) for side in "AB")),
        "lacks the tensors of 'o_proj'",
    ),
    "layers disagree": (_said(layers_to_transform=[0]), "disagree about layer 1"),
    "layers missing": (_said(layers_to_transform=[0, 1, 2]), "disagree about layer 2"),
    "layers as text": (_said(layers_to_transform="all"), "no list of numbers"),
    "a layer too many": (_tensor(lora.key(2, "q_proj", "A"), (4, 16)), "layer 2 of a base"),
    "a layer far too many": (_tensor(lora.key(10**7, "q_proj", "A"), (4, 16)), "layer 10000000"),
    "a layer with a zero": (
        _tensor(f"{BASE}.layers.01.self_attn.q_proj.lora_A.weight", (4, 16)),
        "not supported",
    ),
    "an unknown tensor": (_tensor("extra", (1,)), "'extra'"),
    "a tensor of another block": (
        _tensor(f"{BASE}.layers.0.mlp.q_proj.lora_A.weight", (4, 16)),
        "not supported",
    ),
    "a named adapter's tensor": (
        _tensor(f"{BASE}.layers.0.self_attn.q_proj.lora_A.default.weight", (4, 16)),
        "not supported",
    ),
    "A without B": (_no_tensor(Q_B), "lora_A but not the other"),
    "B without A": (_no_tensor(UP_A), "lora_B but not the other"),
    "A turned over": (_tensor(Q_A, (16, 4)), "is 16 x 4 and should be 4 x 16"),
    "B of another base": (_tensor(UP_B, (25, 4)), "is 25 x 4 and should be 24 x 4"),
    "A of another rank": (_tensor(Q_A, (5, 16)), "is 5 x 16 and should be 4 x 16"),
    "A flat": (_tensor(Q_A, (64,)), "is 64 and should be"),
    "A deep": (_tensor(Q_A, (4, 16, 1)), "is 4 x 16 x 1"),
    "A empty": (_tensor(Q_A, (0, 16)), "is 0 x 16"),
    "float64": (_tensor(Q_A, (4, 16), "F64"), "is F64, not one of"),
    "NaN": (_value(Q_A, float("nan")), "not finite"),
    "infinity": (_value(UP_B, float("inf")), "not finite"),
    "less than nothing": (_value(UP_B, float("-inf")), "not finite"),
    "half NaN": (_value(Q_A, float("nan"), "F16"), "not finite"),
    "half infinity": (_value(Q_B, 1e6, "F16"), "not finite"),
    "bfloat NaN": (_value(Q_A, float("nan"), "BF16"), "not finite"),
    "bfloat infinity": (_value(Q_B, float("-inf"), "BF16"), "not finite"),
    "infinite once scaled": (_value(Q_B, 2e38), "not finite"),
    "infinite once rounded": (_value(Q_A, 3.4e38), "not finite"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_adapter_is_refused_with_its_reason(name: str, tmp_path: Path) -> None:
    change, reason = BAD[name]
    settings, content = lora.settings(), lora.tensors()
    change(settings, content)

    error = _refusal(lora.write(tmp_path, settings, content))

    assert error.code is Code.FILE_REFUSED
    assert reason in error.message
    assert error.message.startswith("This adapter cannot be used, because ")
    assert error.message.endswith(".")
    assert "\n" not in error.message
    assert len(error.message) < 300


def test_a_rank_above_the_limit_is_refused_and_the_limit_named(tmp_path: Path) -> None:
    error = _refusal(lora.write(tmp_path, lora.settings(17), lora.tensors(rank=17)))

    assert "has rank 17 and the limit is 16: raise `engines.openvino.max_rank`" in error.message


BROKEN_CONFIGS = {
    "empty": b"",
    "no JSON": b"{r: 4}",
    "a list": b"[]",
    "no number": b'{"peft_type": "LORA", "r": NaN}',
    "a name twice": b'{"peft_type": "LORA", "peft_type": "LORA"}',
    "deep": b"[" * 100_000,
    "digits without end": b'{"r": ' + b"9" * 100_000 + b"}",
    "broken text": b'{"\xff": 1}',
}


@pytest.mark.parametrize("name", BROKEN_CONFIGS)
def test_a_broken_config_is_no_adapter(name: str, tmp_path: Path) -> None:
    error = _refusal(lora.write(tmp_path, BROKEN_CONFIGS[name], lora.tensors()))

    assert error.code is Code.FILE_INVALID
    assert "adapter_config.json" in error.message


def test_broken_weights_are_no_adapter(tmp_path: Path) -> None:
    sound = lora.safetensors(lora.tensors())
    for weights in (b"", sound[:-1], sound + b"\0", b"PK\x03\x04" * 30):
        error = _refusal(lora.write(tmp_path, lora.settings(), weights))
        assert error.code is Code.FILE_INVALID
        assert "adapter_model.safetensors" in error.message


def test_a_file_larger_than_any_adapter_is_not_read(tmp_path: Path) -> None:
    files = lora.write(tmp_path, lora.settings(), lora.tensors())
    for path in (files.weights, files.config):
        before = path.read_bytes()
        os.truncate(path, 10**12)  # a hole: it takes no space
        error = _refusal(files)
        assert error.code is Code.FILE_REFUSED
        assert f"{path.name} is larger than" in error.message
        path.write_bytes(before)
    assert _read(files).rank == 4


def test_files_that_changed_since_they_were_added_are_not_used(tmp_path: Path) -> None:
    files = lora.write(tmp_path, lora.settings(), lora.tensors())
    for path in (files.weights, files.config):
        before = path.read_bytes()
        path.write_bytes(before.replace(b"4", b"5", 1))
        assert _refusal(files).code is Code.DIGEST_MISMATCH
        path.write_bytes(before)
    assert _read(files).digest == files.digest


def test_only_a_plain_file_is_read(tmp_path: Path) -> None:
    files = lora.write(tmp_path, lora.settings(), lora.tensors())
    (tmp_path / "link").symlink_to(files.weights)
    os.mkfifo(tmp_path / "pipe")

    for name in ("gone", "link", "pipe", "."):
        error = _refusal(replace(files, weights=tmp_path / name))
        assert error.code is Code.FILE_INVALID
        assert "adapter_model.safetensors of this adapter cannot be read" in error.message


def _expected(
    content: lora.Content, layer: int, linear: str, scale: float
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    a = lora.values_of(*content[lora.key(layer, linear, "A")])
    b = lora.values_of(*content[lora.key(layer, linear, "B")])
    return a.T, b.T * np.float32(scale)


def _assert_holds(adapter: Adapter, content: lora.Content, scale: Callable[[str], float]) -> None:
    places = {(i, name) for i in range(2) for name in lora.ALL if lora.key(i, name, "A") in content}
    assert set(adapter.factors) == places
    for layer, linear in places:
        a, b = _expected(content, layer, linear, scale(f"{layer}.{linear}"))
        np.testing.assert_array_equal(adapter.factors[layer, linear][0], a)
        np.testing.assert_array_equal(adapter.factors[layer, linear][1], b)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_factors_are_turned_over_and_the_scale_is_in_b(dtype: str, tmp_path: Path) -> None:
    content = lora.tensors(dtype=dtype)

    adapter = _read(lora.write(tmp_path, lora.settings(lora_alpha=6), content))

    _assert_holds(adapter, content, lambda place: 1.5)
    assert adapter.rank == 4


def test_the_scale_is_over_the_root_of_the_rank_where_the_adapter_says_so(tmp_path: Path) -> None:
    content = lora.tensors()

    adapter = _read(lora.write(tmp_path, lora.settings(lora_alpha=6, use_rslora=True), content))

    _assert_holds(adapter, content, lambda place: 3.0)


def test_a_few_layers_and_linears_are_enough(tmp_path: Path) -> None:
    linears = ("v_proj", "down_proj")
    content = lora.tensors(layers=[1], linears=linears)
    for said in (
        {"target_modules": list(linears)},
        {"target_modules": list(linears), "layers_to_transform": [1], "layers_pattern": "layers"},
        {"target_modules": list(linears), "layers_to_transform": 1},
        {"target_modules": ["self_attn.v_proj", "model.layers.1.mlp.down_proj"]},
        {"target_modules": r".*(v_proj|down_proj)$"},
        {"target_modules": "all-linear"},
        {"target_modules": None},
        {"target_modules": list(linears), "exclude_modules": ["lm_head"], "task_type": None},
        {"target_modules": list(linears), "init_lora_weights": "gaussian"},
        {"target_modules": list(linears), "init_lora_weights": False},
    ):
        adapter = _read(lora.write(tmp_path, lora.settings(**said), content))
        _assert_holds(adapter, content, lambda place: 2.0)


def test_rank_and_alpha_patterns_are_followed(tmp_path: Path) -> None:
    content = lora.tensors(rank=4)
    for layer in (0, 1):
        content.update(lora.tensors(rank=2, layers=[layer], linears=["q_proj"]))
    content.update(lora.tensors(rank=8, layers=[1], linears=["up_proj"]))
    settings = lora.settings(
        rank_pattern={r"layers\.1\.mlp\.up": 3, "model.layers.1.mlp.up_proj": 8, "q_proj": 2},
        alpha_pattern={"^model.layers.0.self_attn.(q|k)_proj": 12, ".*proj": 16},
    )

    adapter = _read(lora.write(tmp_path, settings, content))

    scales = {"0.q_proj": 6.0, "1.q_proj": 8.0, "0.k_proj": 3.0, "1.up_proj": 2.0}
    _assert_holds(adapter, content, lambda place: scales.get(place, 4.0))
    assert adapter.rank == 8


@pytest.mark.parametrize(("dtype", "most"), [("F32", 0.5), ("F16", 1.0), ("BF16", 1.0)])
def test_in_memory_an_adapter_is_no_larger_than_on_the_disk(
    dtype: str, most: float, tmp_path: Path
) -> None:
    content = lora.tensors(dtype=dtype)
    files = lora.write(tmp_path, lora.settings(), content)

    adapter = _read(files, "bf16")

    on_disk = sum(bits.nbytes for _, bits in content.values())
    held = {
        id(_whole(each)): _whole(each).nbytes for pair in adapter.factors.values() for each in pair
    }
    assert sum(held.values()) == adapter.size_bytes == on_disk * most


def _whole(view: Any) -> Any:
    while isinstance(view.base, np.ndarray):
        view = view.base
    return view


def test_nobody_may_write_to_the_factors_of_an_adapter(tmp_path: Path) -> None:
    adapter = _read(lora.write(tmp_path, lora.settings(), lora.tensors()))
    a, b = adapter.factors[0, "q_proj"]

    for factor in (a, b):
        with pytest.raises(ValueError, match="read-only"):
            factor[0, 0] = 1


def test_bfloat16_factors_are_those_of_float32_rounded(tmp_path: Path) -> None:
    files = lora.write(tmp_path, lora.settings(lora_alpha=5), lora.tensors())

    exact, rounded = _read(files, "f32"), _read(files, "bf16")

    for place, pair in exact.factors.items():
        for values, bits in zip(pair, rounded.factors[place], strict=True):
            assert bits.dtype == np.uint16
            np.testing.assert_array_equal(bits, bfloat16(np.ascontiguousarray(values)))


def _nearest(value: float) -> int:
    """By search among the neighbours, in exact arithmetic."""
    bits = int(np.float32(value).view(np.uint32)) >> 16
    near = [bits, bits + 1]
    far = [abs(float(np.uint32(each << 16).view(np.float32)) - value) for each in near]
    if far[0] == far[1]:
        return near[0] if near[0] % 2 == 0 else near[1]
    return near[far.index(min(far))]


@given(st.floats(-(2.0**127), 2.0**127, width=32))
def test_rounding_is_to_the_nearest_and_to_the_even_of_two(value: float) -> None:
    assert bfloat16(np.array([value], np.float32))[0] == _nearest(value)


@pytest.mark.parametrize(
    ("bits", "rounded"),
    [
        (0x3F808000, 0x3F80), (0x3F818000, 0x3F82), (0x3F808001, 0x3F81), (0x3F807FFF, 0x3F80),
        (0x00000001, 0x0000), (0x80000000, 0x8000), (0x7F7F7FFF, 0x7F7F), (0x3FFFFFFF, 0x4000),
    ],
)  # fmt: skip
def test_rounding_at_its_edges(bits: int, rounded: int) -> None:
    assert bfloat16(np.array([bits], np.uint32).view(np.float32))[0] == rounded


def test_the_settings_of_a_real_adapter_are_all_known(tmp_path: Path) -> None:
    """All of what PEFT 0.21 writes for plain LoRA."""
    said = lora.settings() | json.loads(
        """{"alora_invocation_tokens": null, "arrow_config": null, "corda_config": null,
        "ensure_weight_tying": false, "eva_config": null, "exclude_modules": null,
        "kasa_config": null, "layer_replication": null, "layers_pattern": null,
        "layers_to_transform": null, "loftq_config": {}, "lora_bias": false,
        "lora_ga_config": null, "megatron_config": null, "modules_to_save": null,
        "monteclora_config": null, "revision": null, "target_parameters": null,
        "trainable_token_indices": null, "use_bdlora": null, "use_qalora": false,
        "velora_config": null, "auto_mapping": {"parent_library": "transformers"}}"""
    )

    assert _read(lora.write(tmp_path, said, lora.tensors())).rank == 4
