"""Files of revisions, as they are written here and as somebody else would like them to be."""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from freehold.catalog import bundle
from freehold.core.signature import SIGNATURE

Parts = dict[str, bytes]
ADAPTER = "adapter/adapter_model.safetensors"


def parts(content: bytes) -> Parts:
    """By name, as any tar reads them."""
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return {each.name: archive.extractfile(each).read() for each in archive}  # type: ignore[union-attr]


def packed(found: Mapping[str, bytes]) -> bytes:
    """In this order."""
    out = b""
    for name, content in found.items():
        out += entry(name, content)
    return out + bytes(1024)


def entry(name: str, content: bytes, **header: Any) -> bytes:
    made = tarfile.TarInfo(name)
    made.size, made.mode = len(content), 0o644
    for field, value in header.items():
        setattr(made, field, value)
    return made.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512)


def signed(found: Mapping[str, bytes], key: bundle.PrivateKey) -> bytes:
    """The same files, signed anew over what they are now."""
    rest = {name: content for name, content in found.items() if name != SIGNATURE}
    digests = {
        name: f"sha256:{hashlib.sha256(content).hexdigest()}" for name, content in rest.items()
    }
    return packed({SIGNATURE: bundle.signed("revision", digests, key).encode(), **rest})


def telling(found: Mapping[str, bytes], name: str, **changed: Any) -> Parts:
    """With other fields in one of its descriptions."""
    told = json.loads(found[name]) | changed
    return {**found, name: json.dumps(told).encode()}


def unpacked(found: Mapping[str, bytes], folder: Path) -> Path:
    for name, content in found.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder
