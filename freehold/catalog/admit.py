"""What may enter the store: model weights and plain descriptions, never code."""

import json
from pathlib import Path

from freehold.catalog import gguf, safetensors
from freehold.core.errors import Code, UserError

_PLAIN = frozenset({".json", ".txt", ".md", ".model", ".jinja"})
_MAX_PLAIN_BYTES = 64 * 1024 * 1024
_CODE_KEYS = ("auto_map", "custom_pipelines")
_PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz"})
_MAGIC = {b"\x80\x02": "a pickle", b"\x80\x03": "a pickle", b"\x80\x04": "a pickle",
          b"\x80\x05": "a pickle", b"PK\x03\x04": "an archive", b"\x7fELF": "a program",
          b"MZ": "a program", b"#!": "a script"}  # fmt: skip


def check(folder: Path) -> list[Path]:
    """The files of a fetched model, all of them admitted. Raises `FILE_REFUSED` or
    `FILE_INVALID` naming the first that is not; one bad file refuses the whole."""
    files = sorted(path for path in folder.rglob("*") if not path.is_dir())
    for path in files:
        _check(path)
    weights = [path for path in files if path.suffix in (".gguf", ".safetensors")]
    if not weights:
        raise _refused("this source", "holds no GGUF or safetensors file")
    return files


def _check(path: Path) -> None:
    name, suffix = path.name, path.suffix.lower()
    if path.is_symlink() or not path.is_file():
        raise _refused(name, "is not a plain file")
    if suffix == ".py":
        raise _refused(name, "is code, and no model needs to bring any")
    if suffix in _PICKLES:
        raise _refused(name, "can run code when it is opened; ask for safetensors or GGUF")
    with path.open("rb") as file:
        head = file.read(4)
    for magic, what in _MAGIC.items():
        if head.startswith(magic):
            raise _refused(name, f"is {what} under another name")
    if suffix == ".gguf":
        gguf.read_header(path)
    elif suffix == ".safetensors":
        safetensors.read_header(path)
    elif suffix not in _PLAIN:
        raise _refused(name, "is of no kind that a model needs")
    elif path.stat().st_size > _MAX_PLAIN_BYTES:
        raise _refused(name, "is larger than any description")
    elif suffix == ".json":
        _check_json(path)


def _check_json(path: Path) -> None:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise UserError(Code.FILE_INVALID, f"{path.name} is not valid JSON.") from None
    if isinstance(content, dict):
        for key in _CODE_KEYS:
            if key in content:
                raise _refused(path.name, f"asks for code of its own ({key})")


def _refused(name: str, why: str) -> UserError:
    return UserError(Code.FILE_REFUSED, f"{name} {why}: nothing was stored.")
