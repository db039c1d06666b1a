import json
import random
import struct
from pathlib import Path
from typing import Any

import pytest

from freehold.core import safetensors
from freehold.core.errors import Code, UserError
from tests.catalog.making import safetensors_bytes, write


def _one(**changed: Any) -> bytes:
    entry = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24], **changed}
    return safetensors_bytes({"a": entry})


def _prefix(length: int) -> bytes:
    return struct.pack("<Q", length) + safetensors_bytes()[8:]


def test_tensors_are_told_with_their_places_in_the_file(tmp_path: Path) -> None:
    content = safetensors_bytes()
    tensors = safetensors.read_header(write(tmp_path / "m.safetensors", content))

    start = len(content) - 24
    assert [(t.name, t.dtype, t.shape) for t in tensors] == [
        ("a", "F32", (2, 2)),
        ("b", "F16", (4,)),
    ]
    assert [(t.begin - start, t.end - start) for t in tensors] == [(0, 16), (16, 24)]


_TWICE = (
    b'{"a":{"dtype":"F32","shape":[6],"data_offsets":[0,24]},'
    b'"a":{"dtype":"F32","shape":[6],"data_offsets":[0,24]}}'
)

HOSTILE = {
    "empty": b"",
    "seven bytes": b"\0" * 7,
    "length 0": _prefix(0),
    "length past the end": _prefix(10**6),
    "length 2^64": _prefix(2**64 - 1),
    "length negative": _prefix(2**63),
    "a zip": b"PK\x03\x04" * 30,
    "a pickle": b"\x80\x04\x95" + b"\0" * 60,
    "no JSON": safetensors_bytes(b"{not json"),
    "a list": safetensors_bytes([1, 2, 3]),
    "a number": safetensors_bytes(b"12345678"),
    "deep nesting": safetensors_bytes(b"[" * 100_000),
    "deep objects": safetensors_bytes(b'{"a":' * 100_000),
    "digits without end": safetensors_bytes(b'{"a":' + b"9" * 100_000 + b"}"),
    "broken UTF-8": safetensors_bytes(b'{"\xff\xfe": 1}'),
    "no tensors": safetensors_bytes({"__metadata__": {}}, b""),
    "a name twice": safetensors_bytes(_TWICE),
    "metadata with numbers": safetensors_bytes({"__metadata__": {"a": 1}}, b""),
    "metadata as list": safetensors_bytes({"__metadata__": []}, b""),
    "half a million tensors": safetensors_bytes(b"{" + b'"a":[],' * 450_000 + b'"b":[]}'),
    "tensor as number": safetensors_bytes({"a": 7}),
    "field missing": safetensors_bytes({"a": {"dtype": "F32", "shape": [6]}}),
    "field too many": _one(code="import os"),
    "unknown dtype": _one(dtype="OBJECT"),
    "dtype as list": _one(dtype=["F32"]),
    "dtype as object": _one(dtype={"a": 1}),
    "shape as text": _one(shape="23"),
    "shape negative": _one(shape=[-2, -3]),
    "shape as float": _one(shape=[2.0, 3]),
    "shape as bool": _one(shape=[True, 6]),
    "shape NaN": safetensors_bytes(b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,24]}}'),
    "shape overflows": _one(shape=[2**39] * 8),
    "shape of rank 9": _one(shape=[1] * 8 + [6]),
    "offsets of three": _one(data_offsets=[0, 12, 24]),
    "offsets reversed": _one(data_offsets=[24, 0]),
    "offsets negative": _one(data_offsets=[-24, 0]),
    "offsets past the end": _one(shape=[2**30], data_offsets=[0, 2**32]),
    "offsets wrap": _one(data_offsets=[2**64 - 24, 2**64]),
    "size is not shape": _one(shape=[2, 2]),
    "hole before": _one(shape=[5], data_offsets=[4, 24]),
    "overlap": safetensors_bytes(
        {
            "a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
            "b": {"dtype": "F32", "shape": [4], "data_offsets": [8, 24]},
        }
    ),
    "something behind": safetensors_bytes() + b"PK\x03\x04",
    "cut short": safetensors_bytes()[:-1],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / "m.safetensors", HOSTILE[name])

    with pytest.raises(UserError) as refused:
        safetensors.read_header(path)

    assert refused.value.code is Code.FILE_INVALID
    assert "not a sound safetensors file" in refused.value.message


def test_mutated_headers_end_in_tensors_or_in_our_error(tmp_path: Path) -> None:
    sound = safetensors_bytes()
    chance = random.Random(20261124)
    path = tmp_path / "m.safetensors"
    for _ in range(500):
        mutated = bytearray(sound)
        for _ in range(chance.randint(1, 5)):
            mutated[chance.randrange(len(sound) - 24)] = chance.randrange(256)
        path.write_bytes(mutated)
        found = _read(path)
        assert found is Code.FILE_INVALID or found == len(sound)


def _read(path: Path) -> int | Code:
    """Where the last tensor ends, or why there is none."""
    try:
        return safetensors.read_header(path)[-1].end
    except UserError as error:
        return error.code


def test_a_header_of_many_real_tensors_is_read(tmp_path: Path) -> None:
    header = {
        f"model.layers.{i}.mlp.experts.weight": {
            "dtype": "BF16",
            "shape": [1, 1],
            "data_offsets": [2 * i, 2 * i + 2],
        }
        for i in range(20_000)
    }
    path = write(tmp_path / "m.safetensors", safetensors_bytes(header, bytes(40_000)))

    assert len(safetensors.read_header(path)) == 20_000
    assert json.loads(path.read_bytes()[8:-40_000]) == header
