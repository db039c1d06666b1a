"""PEFT adapters become the files that llama.cpp multiplies alike, and hostile ones none."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from freehold.core import peft
from freehold.core.engine import AdapterFiles
from freehold.core.errors import Code, UserError
from freehold.core.gguf import Header, read_header
from freehold.core.safetensors import header_of
from freehold.engines.lora_gguf import LoraFiles
from tests.catalog import making
from tests.engines.tiny import adapter_files, tiny

_NAMES = {
    "q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output",
    "gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down",
}  # fmt: skip


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, tuple[Any, Header]]:
    folder = tmp_path_factory.mktemp("bases")
    made = {name: tiny(name, folder) for name in ("llama", "qwen2")}
    return {name: (each, read_header(each.model.path)) for name, each in made.items()}


@pytest.mark.parametrize("base", ["llama", "qwen2"])
@pytest.mark.parametrize("name", ["plain-r4", "rslora-r16", "part-r8"])
def test_what_llama_cpp_adds_is_what_peft_adds(
    bases: Mapping[str, tuple[Any, Header]], base: str, name: str, tmp_path: Path
) -> None:
    model, header = bases[base]
    adapter = model.adapters[name]
    file = gguf.GGUFReader(LoraFiles(tmp_path, header).get(adapter))
    alpha = file.fields["adapter.lora.alpha"].contents()
    found = {tensor.name: np.asarray(tensor.data, np.float64) for tensor in file.tensors}
    weights = adapter.weights.read_bytes()
    config, tensors = adapter.config.read_bytes(), header_of(weights, peft.WEIGHTS)
    lora = peft.check(config, tensors, header.linears, 2, peft.RankLimit())
    assert len(found) == 2 * len(lora.factors)
    for each in lora.factors:
        place = f"blk.{each.layer}.{_NAMES[each.linear]}.weight"
        a, b = found[f"{place}.lora_a"], found[f"{place}.lora_b"]
        wanted = each.scale * _values(each.b, weights) @ _values(each.a, weights)
        if base == "llama" and each.linear in ("q_proj", "k_proj"):
            # Row 2i of a head of llama.cpp's is row i, and 2i + 1 is that of its second half.
            heads = header.heads if each.linear == "q_proj" else header.kv_heads
            order = np.arange(len(b)).reshape(heads, 2, -1).swapaxes(1, 2).reshape(-1)
            wanted = wanted[order]
        assert np.allclose(alpha / b.shape[1] * b @ a, wanted, rtol=1e-5, atol=1e-7)
    assert file.fields["general.architecture"].contents() == base
    assert file.fields["adapter.type"].contents() == "lora"


def _values(tensor: Any, weights: bytes) -> Any:
    content = weights[tensor.begin : tensor.end]
    if tensor.dtype == "BF16":
        bits = np.frombuffer(content, "<u2").astype(np.uint32) << 16
        return bits.view(np.float32).astype(np.float64).reshape(tensor.shape)
    kind = {"F32": "<f4", "F16": "<f2"}[tensor.dtype]
    return np.frombuffer(content, kind).astype(np.float64).reshape(tensor.shape)


def test_a_converted_file_is_used_again_until_it_is_damaged(
    bases: Mapping[str, tuple[Any, Header]], tmp_path: Path
) -> None:
    model, header = bases["llama"]
    adapter = model.adapters["plain-r4"]
    path = LoraFiles(tmp_path, header).get(adapter)
    content, made = path.read_bytes(), path.stat().st_mtime_ns
    gone = AdapterFiles(adapter.digest, tmp_path / "none", tmp_path / "none")
    assert LoraFiles(tmp_path, header).get(gone) == path
    assert path.stat().st_mtime_ns == made
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError):
        LoraFiles(tmp_path, header).get(gone)
    assert LoraFiles(tmp_path, header).get(adapter) == path
    assert path.read_bytes() == content
    assert path.stem == adapter.digest.removeprefix("sha256:")
    LoraFiles(tmp_path, header).forget(adapter.digest)
    assert not list(path.parent.iterdir())


def test_bases_of_another_layout_share_no_file(
    bases: Mapping[str, tuple[Any, Header]], tmp_path: Path
) -> None:
    model, _ = bases["llama"]
    paths = [
        LoraFiles(tmp_path, header).get(model.adapters["plain-r4"]) for _, header in bases.values()
    ]
    assert paths[0].name == paths[1].name
    assert paths[0].read_bytes() != paths[1].read_bytes()


def test_an_adapter_that_was_changed_is_refused(
    bases: Mapping[str, tuple[Any, Header]], tmp_path: Path
) -> None:
    model, header = bases["llama"]
    adapter = model.adapters["plain-r4"]
    weights = shutil.copy(adapter.weights, tmp_path / "weights")
    content = bytearray(adapter.weights.read_bytes())
    content[-1] ^= 1
    Path(weights).write_bytes(content)
    with pytest.raises(UserError) as refused:
        LoraFiles(tmp_path, header).get(AdapterFiles(adapter.digest, adapter.config, weights))
    assert refused.value.code is Code.DIGEST_MISMATCH


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_is_refused(value: float, tmp_path: Path) -> None:
    header = _decoder(tmp_path)
    adapter = adapter_files(making.peft_folder(tmp_path / f"a{value}", value=value))
    with pytest.raises(UserError) as refused:
        LoraFiles(tmp_path, header).get(adapter)
    assert refused.value.code is Code.FILE_REFUSED
    assert "not finite" in refused.value.message


def test_a_value_that_its_scale_makes_infinite_is_refused(tmp_path: Path) -> None:
    header = _decoder(tmp_path)
    folder = making.peft_folder(
        tmp_path / "a", value=3e38, lora_alpha=1, alpha_pattern={"v_proj": 1000}
    )
    with pytest.raises(UserError) as refused:
        LoraFiles(tmp_path, header).get(adapter_files(folder))
    assert "not finite" in refused.value.message


def test_a_base_whose_linears_have_no_known_names_is_refused(tmp_path: Path) -> None:
    adapter = adapter_files(making.peft_folder(tmp_path / "a"))
    with pytest.raises(UserError) as refused:
        LoraFiles(tmp_path, _decoder(tmp_path, "falcon")).get(adapter)
    assert refused.value.code is Code.FILE_REFUSED
    assert "base of the Llama or Qwen family" in refused.value.message


def _decoder(folder: Path, architecture: str = "llama") -> Header:
    path = making.write(folder / "base.gguf", making.decoder_bytes())
    found = read_header(path)
    fields = {name: getattr(found, name) for name in Header.__slots__}
    return Header(**{**fields, "architecture": architecture, "heads": 4, "kv_heads": 2})


def test_settings_that_mean_another_model_are_refused(tmp_path: Path) -> None:
    adapter = adapter_files(making.peft_folder(tmp_path / "a", use_dora=True))
    assert json.loads(adapter.config.read_text())["use_dora"]
    with pytest.raises(UserError) as refused:
        LoraFiles(tmp_path, _decoder(tmp_path)).get(adapter)
    assert refused.value.code is Code.FILE_REFUSED
