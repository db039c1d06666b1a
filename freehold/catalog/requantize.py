"""Rewrites a GGUF in another quantization: `python -m freehold.catalog.requantize`.

A process of its own, started without secrets: it reads a file that somebody else
made. Norms and other vectors keep their type; the embedding keeps its own when it
is finer than the target, because every token passes through it.
"""

import argparse
import sys
from pathlib import Path

import gguf
import numpy as np

_BITS = {"Q4_0": 4.5, "Q4_1": 5, "Q5_0": 5.5, "Q5_1": 6, "Q8_0": 8.5, "Q6_K": 6.6, "F16": 16}
_SET_BY_WRITER = ("GGUF.", "general.architecture", "general.file_type", "general.alignment")


def requantize(source: Path, target: Path, quantization: str) -> None:
    reader = gguf.GGUFReader(source)
    wanted = gguf.GGMLQuantizationType[quantization]
    architecture = reader.get_field("general.architecture")
    if architecture is None:
        sys.exit("the file names no architecture")
    writer = gguf.GGUFWriter(target, architecture.contents())
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{quantization}"])
    for field in reader.fields.values():
        if not field.name.startswith(_SET_BY_WRITER):
            outer = field.types[0]
            inner = field.types[-1] if outer == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), outer, sub_type=inner)
    for tensor in reader.tensors:
        data, kind = _converted(tensor, wanted)
        writer.add_tensor(tensor.name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _converted(
    tensor: gguf.ReaderTensor, wanted: gguf.GGMLQuantizationType
) -> tuple[np.ndarray, gguf.GGMLQuantizationType]:
    kind = tensor.tensor_type
    is_vector = len(tensor.shape) < 2
    is_finer = "embd" in tensor.name and _BITS.get(kind.name, 0) > _BITS[wanted.name]
    if is_vector or is_finer or kind == wanted or int(tensor.shape[0]) % 32:
        return tensor.data, kind
    values = gguf.quants.dequantize(tensor.data, kind)
    return gguf.quants.quantize(values, wanted), wanted


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("quantization", choices=["Q4_0", "Q8_0"])
    options = parser.parse_args()
    requantize(options.source, options.target, options.quantization)


if __name__ == "__main__":
    main()
