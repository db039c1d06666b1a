"""Makes a GGUF of a BERT sentence encoder's safetensors, such as all-MiniLM-L6-v2.

The work is done by `python -m freehold.catalog.bert` in a process of its own, started
without secrets: it reads files that somebody else made. Matrices become F16, vectors
and the small tables stay F32.
"""

import argparse
import json
import math
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from freehold.core import safetensors
from freehold.core.errors import Code, UserError

_CONVERT_S = 300
_MAX_VALUE, _MAX_VOCABULARY = 1_000_000, 1_000_000
_DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2")}
_STAY_F32 = ("position_embd.weight", "token_types.weight")
_IGNORED = re.compile(r"(bert\.)?(pooler\.|embeddings\.position_ids$|cls\.)")
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def convert(files: Sequence[Path], into: Path) -> Path:
    """The GGUF made of a fetched model. Raises `FILE_REFUSED` when it is none that can
    be converted."""
    weights = [path for path in files if path.suffix.lower() == ".safetensors"]
    folder = weights[0].parent
    needed = {"config.json", "vocab.txt"} <= {path.name for path in folder.iterdir()}
    if len(weights) != 1 or not needed:
        raise _refused()
    target = into / f"{folder.name}.F16.gguf"
    try:
        ended = subprocess.run(
            [sys.executable, "-I", "-m", "freehold.catalog.bert", folder, weights[0], target],
            env={"LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_CONVERT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _refused() from None
    if ended.returncode:
        raise _refused()
    return target


def _refused() -> UserError:
    return UserError(
        Code.FILE_REFUSED,
        "This source holds safetensors that cannot be made into a GGUF here (only BERT sentence "
        "encoders can): pull a GGUF of the same model.",
    )


def write_gguf(folder: Path, weights: Path, target: Path) -> None:
    config = json.loads((folder / "config.json").read_bytes())
    if config.get("model_type") != "bert" or config.get("hidden_act") != "gelu":
        sys.exit("not a BERT encoder")
    layers = _number(config, "num_hidden_layers")
    writer = gguf.GGUFWriter(target, "bert")
    writer.add_name(folder.name)
    writer.add_block_count(layers)
    writer.add_context_length(_number(config, "max_position_embeddings"))
    writer.add_embedding_length(_number(config, "hidden_size"))
    writer.add_feed_forward_length(_number(config, "intermediate_size"))
    writer.add_head_count(_number(config, "num_attention_heads"))
    writer.add_layer_norm_eps(float(config["layer_norm_eps"]))
    writer.add_causal_attention(False)
    writer.add_pooling_type(_pooling(folder))
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    _add_vocabulary(writer, folder, config)
    _add_tensors(writer, weights, layers)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _number(config: dict[str, Any], name: str) -> int:
    value = config.get(name)
    if type(value) is not int or not 0 < value < _MAX_VALUE:
        sys.exit(f"{name} is impossible")
    return value


def _pooling(folder: Path) -> gguf.PoolingType:
    path = folder / "1_Pooling" / "config.json"
    said = json.loads(path.read_bytes()) if path.exists() else {}
    is_cls = said.get("pooling_mode_cls_token") is True
    return gguf.PoolingType.CLS if is_cls else gguf.PoolingType.MEAN


def _add_vocabulary(writer: gguf.GGUFWriter, folder: Path, config: dict[str, Any]) -> None:
    words = (folder / "vocab.txt").read_text("utf-8").split("\n")
    words = words[:-1] if words[-1] == "" else words
    if len(words) != config.get("vocab_size") or len(words) > _MAX_VOCABULARY:
        sys.exit("the vocabulary does not fit the model")
    normal, control = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL
    writer.add_tokenizer_model("bert")
    writer.add_token_list([_as_gguf(word) for word in words])
    writer.add_token_types([control if word in _SPECIAL else normal for word in words])
    writer.add_token_type_count(_number(config, "type_vocab_size"))
    pad, unknown, start, separator, mask = (words.index(word) for word in _SPECIAL)
    writer.add_pad_token_id(pad)
    writer.add_unk_token_id(unknown)
    writer.add_bos_token_id(start)
    writer.add_eos_token_id(separator)
    writer.add_sep_token_id(separator)
    writer.add_mask_token_id(mask)


def _as_gguf(word: str) -> str:
    """GGUF marks the start of a word where WordPiece marks its continuation."""
    if word.startswith("[") and word.endswith("]"):
        return word
    return word.removeprefix("##") if word.startswith("##") else "\u2581" + word


def _add_tensors(writer: gguf.GGUFWriter, weights: Path, layers: int) -> None:
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, layers)
    for tensor in safetensors.read_header(weights):
        if _IGNORED.match(tensor.name):
            continue
        name = names.get_name(tensor.name, try_suffixes=(".weight", ".bias"))
        if name is None or tensor.dtype not in _DTYPES:
            sys.exit(f"unexpected tensor {tensor.name}")
        data = np.fromfile(
            weights,
            dtype=_DTYPES[tensor.dtype],
            count=math.prod(tensor.shape),
            offset=tensor.begin,
        ).reshape(tensor.shape)
        is_matrix = len(tensor.shape) == 2 and name not in _STAY_F32
        writer.add_tensor(name, data.astype(np.float16 if is_matrix else np.float32))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("target", type=Path)
    options = parser.parse_args()
    write_gguf(options.folder, options.weights, options.target)


if __name__ == "__main__":
    main()
