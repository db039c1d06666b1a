"""What a training job was made of, in words."""

from collections.abc import Mapping
from typing import Any


def name_of(spec: Mapping[str, Any], what: str) -> str | None:
    """Of its base or dataset as it was called then; the digest for a job from before that was
    kept."""
    found: str | None = spec.get("names", {}).get(what) or spec.get(what)
    return found


def named(spec: Mapping[str, Any], what: str) -> str | None:
    name, digest = name_of(spec, what), spec.get(what)
    return name if name == digest else f"{name} ({digest})"
