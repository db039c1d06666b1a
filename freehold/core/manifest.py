"""Where an adapter comes from: what it was trained on, with and from, by digests."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from freehold.core.errors import Code, UserError
from freehold.core.ids import is_digest

MANIFEST = "freehold.json"  # beside the two files of an adapter
MAX_BYTES = 64 * 1024
_DIGESTS = ("base_digest", "tokenizer_digest", "template_digest", "dataset_digest")


@dataclass(frozen=True, slots=True)
class Manifest:
    """`job` is the one that made it here; an adapter from elsewhere has none."""

    base_digest: str
    tokenizer_digest: str | None
    template_digest: str | None
    dataset_digest: str | None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    licences: Mapping[str, Any] = field(default_factory=dict)
    made_with: Mapping[str, Any] = field(default_factory=dict)
    job: str | None = None


def manifest_of(content: Any) -> Manifest:
    """Raises `FILE_REFUSED` for what is no manifest."""
    if not isinstance(content, dict) or not is_digest(str(content.get("base_digest"))):
        raise _refused("it names no base by its digest")
    for name in _DIGESTS[1:]:
        value = content.get(name)
        if value is not None and not (isinstance(value, str) and is_digest(value)):
            raise _refused(f"{name} is no digest")
    for name in ("recipe", "licences", "made_with"):
        if not isinstance(content.get(name, {}), dict):
            raise _refused(f"{name} is no object")
    return Manifest(
        **{name: content.get(name) for name in _DIGESTS},  # type: ignore[arg-type]
        recipe=content.get("recipe", {}),
        licences=content.get("licences", {}),
        made_with=content.get("made_with", {}),
        job=content["job"] if isinstance(content.get("job"), str) else None,
    )


def read_manifest(text: bytes) -> Manifest:
    """Raises `FILE_REFUSED`."""
    if len(text) > MAX_BYTES:
        raise _refused(f"it is longer than {MAX_BYTES // 1024} KiB")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise _refused("it is no JSON") from None
    return manifest_of(content)


def as_plain(manifest: Manifest) -> dict[str, Any]:
    return asdict(manifest)


def _refused(why: str) -> UserError:
    return UserError(
        Code.FILE_REFUSED,
        f"{MANIFEST} beside the adapter cannot be read: {why}. Take the file away to add the "
        "adapter without saying where it comes from.",
    )
