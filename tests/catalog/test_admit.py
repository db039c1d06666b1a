"""Repositories that bring code: none reaches the store, and nothing of them runs."""

import io
import pickle
import zipfile
from pathlib import Path

import pytest

from freehold.catalog.pull import pull
from freehold.catalog.store import ModelStore
from freehold.core.errors import Code, UserError
from tests.catalog.making import gguf_bytes, safetensors_bytes, write


class _Bomb:
    """Touches the canary when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.canary), "w")


def _zip(name: str, content: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(name, content)
    return made.getvalue()


def repositories(canary: Path) -> dict[str, dict[str, bytes]]:
    good = {"model.gguf": gguf_bytes()}
    code = f"open({str(canary)!r}, 'w')".encode()
    bomb = pickle.dumps(_Bomb(canary))
    torch = _zip("archive/data.pkl", bomb)
    return {
        "pickle as bin": {**good, "pytorch_model.bin": torch},
        "pickle as pt": {**good, "model.pt": bomb},
        "pickle as pth": {**good, "consolidated.00.pth": torch},
        "pickle as pkl": {**good, "optimizer.pkl": bomb},
        "pickle as ckpt": {**good, "last.CKPT": torch},
        "pickle as joblib": {**good, "scaler.joblib": bomb},
        "pickle as npy": {**good, "weights.npy": bomb},
        "pickle alone": {"pytorch_model.bin": torch},
        "pickle called safetensors": {"model.safetensors": bomb},
        "pickle called gguf": {"model.gguf": bomb},
        "pickle called json": {**good, "config.json": bomb},
        "pickle called tokenizer": {**good, "tokenizer.model": bomb},
        "pickle of protocol 0": {**good, "notes.txt": pickle.dumps(_Bomb(canary), 0)},
        "zip called safetensors": {"model.safetensors": torch},
        "zip called text": {**good, "README.md": torch},
        "zip behind a gguf": {"model.gguf": gguf_bytes() + torch},
        "python": {**good, "modeling_evil.py": code},
        "python in a folder": {**good, "src/deep/er/Modeling.PY": code},
        "bytecode": {**good, "__pycache__/x.cpython-311.pyc": code},
        "native library": {**good, "libcuda.so": b"\x7fELF" + b"\0" * 60},
        "program called text": {**good, "LICENSE.txt": b"\x7fELF" + b"\0" * 60},
        "shell script": {**good, "install.sh": b"#!/bin/sh\n"},
        "script called md": {**good, "README.md": b"#!/usr/bin/env python3\n" + code},
        "auto_map": {**good, "config.json": b'{"auto_map": {"AutoModel": "evil.Model"}}'},
        "auto_map deeper": {**good, "config.json": b'{"text": [{"auto_map" : {}}]}'},
        "auto_map escaped": {**good, "tokenizer_config.json": rb'{"\u0061uto\u005fmap": {}}'},
        "custom pipelines": {**good, "config.json": b'{"custom_pipelines": {"x": "evil"}}'},
        "auto_map in a large file": {
            **good,
            "tokenizer.json": b'{"a": "' + b"x" * 2**21 + b'", "auto_map": {}}',
        },
        "broken configuration": {**good, "config.json": b'{"a": '},
        "a good and a bad weight": {**good, "second.safetensors": safetensors_bytes()[:-4]},
        "notebook": {**good, "demo.ipynb": b"{}"},
        "nothing to load": {"README.md": b"hello"},
    }


@pytest.mark.parametrize("name", repositories(Path("x")))
def test_a_malicious_repository_never_reaches_the_store(name: str, tmp_path: Path) -> None:
    canary, home = tmp_path / "canary", tmp_path / "home"
    for file, content in repositories(canary)[name].items():
        write(tmp_path / "evil" / file, content)
    store = ModelStore(home)

    with pytest.raises(UserError) as refused:
        pull(
            store,
            home,
            f"file:{tmp_path / 'evil'}",
            accept_licence="test",
            progress=lambda *_: None,
        )

    assert refused.value.code in (Code.FILE_REFUSED, Code.FILE_INVALID)
    assert not canary.exists()
    assert store.list() == []
    assert [path for path in home.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("target", ["/etc/passwd", "../../secret", "/dev/zero"])
def test_links_inside_a_repository_are_refused(target: str, tmp_path: Path) -> None:
    write(tmp_path / "evil" / "model.gguf", gguf_bytes())
    (tmp_path / "evil" / "config.json").symlink_to(target)
    home = tmp_path / "home"

    with pytest.raises(UserError) as refused:
        pull(ModelStore(home), home, f"file:{tmp_path / 'evil'}", progress=lambda *_: None)

    assert refused.value.code is Code.FILE_REFUSED


def test_what_is_no_model_and_no_code_is_left_behind(tmp_path: Path) -> None:
    for name in ("model.gguf", "README.md", "LICENSE", "plot.png", ".gitattributes"):
        content = gguf_bytes() if name == "model.gguf" else b"plain"
        write(tmp_path / "fine" / name, content)
    home = tmp_path / "home"

    card = pull(ModelStore(home), home, f"file:{tmp_path / 'fine'}", progress=lambda *_: None)

    assert [file.name for file in card.files] == ["model.gguf"]
