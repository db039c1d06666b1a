"""Rewrites a GGUF in another quantization: `python -m freehold.catalog.requantize`.

A process of its own, started without secrets: it reads a file that somebody else
made. Norms and other vectors keep their type. The embedding and the output matrix,
which every token passes through, are not made coarser than Q8_0.
"""

import argparse
import resource
import sys
from pathlib import Path

import gguf
import numpy as np

_FLOATS = ("F64", "F32", "F16", "BF16")
_EVERY_TOKEN = ("token_embd.weight", "output.weight")
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
    if tensor.name in _EVERY_TOKEN:
        wanted = gguf.GGMLQuantizationType.Q8_0 if kind.name in _FLOATS else kind
    if len(tensor.shape) < 2 or kind == wanted or int(tensor.shape[0]) % 32:
        return tensor.data, kind
    values = gguf.quants.dequantize(tensor.data, kind)
    return gguf.quants.quantize(values, wanted), wanted


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("quantization", choices=["Q4_0", "Q8_0"])
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    requantize(options.source, options.target, options.quantization)


if __name__ == "__main__":
    main()
