"""What may enter the store: model weights and plain descriptions, never code."""

import json
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from freehold.core import gguf, safetensors
from freehold.core.errors import Code, UserError

WEIGHTS = frozenset({".gguf", ".safetensors"})
_PLAIN = frozenset({".json", ".txt", ".md", ".model", ".jinja"})
_MAX_PLAIN_BYTES, _MAX_PARSED_BYTES = 64 * 1024 * 1024, 1024 * 1024
_CODE = frozenset({
    ".py", ".pyc", ".pyo", ".pyw", ".so", ".dll", ".dylib", ".exe", ".sh", ".bat", ".ps1", ".js",
    ".ipynb", ".jar",
})  # fmt: skip
_PICKLES = frozenset({
    ".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill", ".npy", ".npz", ".h5",
    ".keras", ".mar", ".nemo",
})  # fmt: skip
# What the first bytes say, whatever the name says.
_MAGIC = {b"\x80": "a pickle", b"(dp": "a pickle", b"(lp": "a pickle", b"PK": "an archive",
          b"\x1f\x8b": "an archive", b"7z\xbc\xaf": "an archive", b"\x89HDF": "an HDF5 file",
          b"\x7fELF": "a program", b"MZ": "a program", b"\xcf\xfa\xed\xfe": "a program",
          b"\xca\xfe\xba\xbe": "a program", b"#!": "a script"}  # fmt: skip
# The oldest pickle protocol is text: it begins with the name of a function to call.
_TEXT_PICKLE = re.compile(rb"\(?[ci][A-Za-z_][\w.]*\n[A-Za-z_]")
# Keys with which a configuration names code of its own, also when written with JSON
# escapes: `"auto\u005fmap"` is the same key.
_CODE_KEYS = re.compile(rb'"(auto_map|custom_pipelines)"\s*:')
_ASCII_ESCAPE = re.compile(rb"\\u00([2-7][0-9a-fA-F])")


def choose(names: Iterable[str]) -> list[str]:
    """The files of a repository that are worth fetching. Raises `FILE_REFUSED` naming
    the first that is code or a pickle: such a repository is refused as a whole."""
    wanted = []
    for name in sorted(names):
        _check_name(name)
        if PurePosixPath(name).suffix.lower() in WEIGHTS | _PLAIN:
            wanted.append(name)
    return wanted


def check(folder: Path) -> list[Path]:
    """The files of a fetched model, all of them admitted. Raises `FILE_REFUSED` or
    `FILE_INVALID` naming the first that is not; one bad file refuses the whole."""
    files = sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    for path in files:
        _check_name(path.name)
        _check_content(path)
    if not any(path.suffix.lower() in WEIGHTS for path in files):
        raise _refused("This source", "holds no GGUF or safetensors file")
    return files


def _check_name(name: str) -> None:
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in _CODE:
        raise _refused(name, "is code, and no model needs to bring any")
    if suffix in _PICKLES:
        raise _refused(name, "can run code when it is opened; ask for safetensors or GGUF")


def _check_content(path: Path) -> None:
    name, suffix = path.name, path.suffix.lower()
    if path.is_symlink() or not path.is_file():
        raise _refused(name, "is not a plain file")
    if suffix == ".gguf":
        gguf.read_header(path)
    elif suffix == ".safetensors":
        safetensors.read_header(path)
    elif suffix not in _PLAIN:
        raise _refused(name, "is of no kind that a model needs")
    elif path.stat().st_size > _MAX_PLAIN_BYTES:
        raise _refused(name, "is larger than any description")
    else:
        check_plain(path.name, path.read_bytes())


def check_plain(name: str, content: bytes) -> None:
    """Raises `FILE_REFUSED` for a description that is, or asks for, something else."""
    for magic, what in _MAGIC.items():
        if content.startswith(magic):
            raise _refused(name, f"is {what} under another name")
    if _TEXT_PICKLE.match(content) and content.endswith(b"."):
        raise _refused(name, "is a pickle under another name")
    if not name.lower().endswith(".json"):
        return
    plain = _ASCII_ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), content)
    key = _CODE_KEYS.search(plain)
    if key is not None:
        raise _refused(name, f"asks for code of its own ({key[1].decode()})")
    if len(content) <= _MAX_PARSED_BYTES:
        _check_json(name, content)


def _check_json(name: str, content: bytes) -> None:
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        raise UserError(
            Code.FILE_INVALID, f"{name} is not valid JSON: nothing was stored."
        ) from None


def _refused(name: str, why: str) -> UserError:
    return UserError(Code.FILE_REFUSED, f"{name[:120]} {why}: nothing was stored.")
