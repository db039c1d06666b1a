"""The digest of several files is one that any tool can compute."""

import subprocess

from freehold.core.ids import is_digest
from freehold.core.model import digest_of_files

_A, _B = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def test_it_is_the_sha256_of_the_sorted_lines_of_names_and_digests() -> None:
    lines = f"a.json {_A}\nb.safetensors {_B}\n"
    by_a_tool = subprocess.run(
        ["sha256sum"], input=lines, capture_output=True, text=True, check=True
    ).stdout.split()[0]

    assert digest_of_files({"b.safetensors": _B, "a.json": _A}) == f"sha256:{by_a_tool}"


def test_names_and_contents_both_count() -> None:
    found = {
        digest_of_files(files)
        for files in ({"a": _A, "b": _B}, {"a": _B, "b": _A}, {"a": _A}, {"c": _A, "b": _B}, {})
    }

    assert len(found) == 5
    assert all(map(is_digest, found))
