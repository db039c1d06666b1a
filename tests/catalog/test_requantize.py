"""Another quantization of a real GGUF: the same model, within the format's rounding."""

import subprocess
import sys
from pathlib import Path

import gguf as library
import numpy as np
import pytest

from freehold.core import gguf

_SHAPE = {"token_embd.weight": (64, 96), "blk.0.ffn_up.weight": (32, 96), "odd.weight": (32, 40)}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.gguf"
    writer = library.GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(96)
    writer.add_license("apache-2.0")
    writer.add_chat_template("{{ messages }}")
    writer.add_token_list(["a", "b", "ü"])
    writer.add_token_scores([0.5, 1.5, 2.5])
    writer.add_rope_freq_base(10_000.0)
    values = np.random.default_rng(1)
    for name, shape in _SHAPE.items():
        writer.add_tensor(name, values.normal(size=shape).astype(np.float32))
    writer.add_tensor("output_norm.weight", np.ones(96, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _requantized(source: Path, kind: str) -> library.GGUFReader:
    target = source.with_name(f"{kind}.gguf")
    command = [sys.executable, "-m", "freehold.catalog.requantize", source, target, kind]
    subprocess.run(command, check=True, env={}, capture_output=True)
    gguf.read_header(target)
    return library.GGUFReader(target)


@pytest.mark.parametrize(("kind", "error"), [("Q8_0", 0.01), ("Q4_0", 0.15)])
def test_values_stay_within_the_rounding_of_the_format(
    kind: str, error: float, source: Path
) -> None:
    before = {tensor.name: tensor for tensor in library.GGUFReader(source).tensors}
    after = {tensor.name: tensor for tensor in _requantized(source, kind).tensors}

    assert after["blk.0.ffn_up.weight"].tensor_type.name == kind
    assert after["token_embd.weight"].tensor_type.name == "Q8_0"
    assert after["output_norm.weight"].tensor_type.name == "F32"
    assert after["odd.weight"].tensor_type.name == "F32", "40 values fill no blocks of 32"
    for name, tensor in after.items():
        values = library.quants.dequantize(tensor.data, tensor.tensor_type)
        lost = np.sqrt(np.mean((values - before[name].data) ** 2))
        assert lost <= error


def test_what_is_said_of_the_model_stays(source: Path) -> None:
    changing = {"GGUF.version", "GGUF.kv_count", "general.file_type"}
    before, after = library.GGUFReader(source).fields, _requantized(source, "Q8_0").fields

    for name, field in before.items():
        if name not in changing:
            assert after[name].contents() == field.contents()
            assert after[name].types == field.types
    assert after["general.file_type"].contents() == library.LlamaFileType.MOSTLY_Q8_0
