"""Hostile GGUF files: refused with a reason, cheaply, and with nothing but our error."""

import random
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from gguf.constants import GGML_QUANT_SIZES

from freehold.core import gguf
from freehold.core.errors import Code, UserError
from tests.catalog.making import (
    ARRAY,
    F32,
    STRING,
    U32,
    U64,
    gguf_bytes,
    key,
    keys,
    strings,
    tensor,
    text,
    write,
)

_HUGE = 2**64 - 1


def test_a_sound_header_says_what_the_model_is(tmp_path: Path) -> None:
    header = gguf.read_header(write(tmp_path / "m.gguf", gguf_bytes()))

    assert header.architecture == "llama"
    assert header.parameters == 96
    assert header.quantization == "F32"
    assert header.context_length == 4096
    assert header.embedding_length == 64
    assert header.chat_template == "{{ messages }}"
    assert header.licence == "apache-2.0"
    assert header.tokenizer == "gpt2"
    assert not header.is_embedding


def test_sizes_of_types_are_those_of_the_format() -> None:
    known = {kind.value: (kind.name, *sizes) for kind, sizes in GGML_QUANT_SIZES.items()}

    assert {kind: known[kind] for kind in gguf._TYPES} == gguf._TYPES


def _nested_array() -> bytes:
    inner = struct.pack("<IQ", ARRAY, 1) * 2000
    return text("x") + struct.pack("<I", ARRAY) + inner


def _array(kind: int, count: int) -> bytes:
    return text("x") + struct.pack("<IIQ", ARRAY, kind, count)


HOSTILE = {
    "empty": b"",
    "other magic": b"GGML" + gguf_bytes()[4:],
    "a zip": b"PK\x03\x04" + b"\0" * 100,
    "only magic": b"GGUF",
    "version 1": gguf_bytes(version=1),
    "version 4": gguf_bytes(version=4),
    "big endian": b"GGUF" + struct.pack(">IQQ", 3, 1, 1),
    "a billion keys": gguf_bytes(key_count=10**9),
    "keys overflow": gguf_bytes(key_count=_HUGE),
    "tensors overflow": gguf_bytes(tensor_count=_HUGE),
    "tensors x size wraps": gguf_bytes(tensor_count=2**61),
    "no tensors": gguf_bytes(tensors=[]),
    "one key more than there is": gguf_bytes(key_count=len(keys()) + 1),
    "one tensor more than there is": gguf_bytes(tensor_count=3, data_bytes=8),
    "key name of 2^64 bytes": gguf_bytes([struct.pack("<Q", _HUGE) + b"x"]),
    "key name of 1 MB": gguf_bytes([text("k" * 2**20) + struct.pack("<II", U32, 1)]),
    "text of 2^64 bytes": gguf_bytes([text("k") + struct.pack("<IQ", STRING, _HUGE)]),
    "text that wraps to itself": gguf_bytes([text("k") + struct.pack("<IQ", STRING, _HUGE - 7)]),
    "key no UTF-8": gguf_bytes([text(b"\xff\xfe") + struct.pack("<II", U32, 1)]),
    "key twice": gguf_bytes([*keys(), keys()[0]]),
    "unknown value type": gguf_bytes([text("k") + struct.pack("<I", 99)]),
    "array of 2^64": gguf_bytes([_array(U32, _HUGE)]),
    "array that wraps": gguf_bytes([_array(U64, 2**61)]),
    "array of too many texts": gguf_bytes([_array(STRING, 3_999_999)]),
    "array of unknown type": gguf_bytes([_array(77, 1)]),
    "arrays in arrays": gguf_bytes([_nested_array()]),
    "array item of 1 GB": gguf_bytes([_array(STRING, 1) + struct.pack("<Q", 2**30)]),
    "no architecture": gguf_bytes(keys()[1:]),
    "architecture is a path": gguf_bytes(keys("../../etc/passwd")),
    "architecture is a number": gguf_bytes([key("general.architecture", U32, 7)]),
    "context of 0": gguf_bytes([*keys()[:1], key("llama.context_length", U32, 0)]),
    "context as float": gguf_bytes([*keys()[:1], key("llama.context_length", F32, 1.5)]),
    "alignment 0": gguf_bytes([*keys(), key("general.alignment", U32, 0)]),
    "alignment 3": gguf_bytes([*keys(), key("general.alignment", U32, 3)]),
    "alignment 2^31": gguf_bytes([*keys(), key("general.alignment", U32, 2**31)]),
    "alignment as text": gguf_bytes([*keys(), key("general.alignment", STRING, "32")]),
    "one of three parts": gguf_bytes([*keys(), key("split.count", U32, 3)]),
    "rank 0": gguf_bytes(tensors=[tensor("t", [], 0, 0)]),
    "rank 5": gguf_bytes(tensors=[tensor("t", [1] * 5, 0, 0)]),
    "rank 2^32": gguf_bytes(tensors=[text("t") + struct.pack("<I", 2**32 - 1)]),
    "dimension 0": gguf_bytes(tensors=[tensor("t", [64, 0], 0, 0)]),
    "dimensions overflow": gguf_bytes(tensors=[tensor("t", [2**32, 2**32], 0, 0)]),
    "dimensions wrap to 64": gguf_bytes(tensors=[tensor("t", [2**63, 2, 64, 1], 0, 0)]),
    "dimension negative": gguf_bytes(tensors=[tensor("t", [_HUGE, 1], 0, 0)]),
    "unknown tensor type": gguf_bytes(tensors=[tensor("t", [64], 1000, 0)]),
    "removed tensor type": gguf_bytes(tensors=[tensor("t", [64], 4, 0)]),
    "half a block": gguf_bytes(tensors=[tensor("t", [33], 2, 0)]),
    "offset past the end": gguf_bytes(tensors=[tensor("t", [64], 0, 2**40)]),
    "offset wraps": gguf_bytes(tensors=[tensor("t", [64], 0, _HUGE - 31)]),
    "offset odd": gguf_bytes(tensors=[tensor("t", [64], 0, 1)]),
    "size past the end": gguf_bytes(tensors=[tensor("t", [2**20], 0, 0)]),
    "tensor twice": gguf_bytes(tensors=[tensor("t", [64], 0, 0), tensor("t", [32], 0, 256)]),
    "tensors overlap": gguf_bytes(tensors=[tensor("a", [64], 0, 0), tensor("b", [32], 0, 128)]),
    "hole between": gguf_bytes(
        tensors=[tensor("a", [64], 0, 0), tensor("b", [32], 0, 512)], data_bytes=640
    ),
    "something behind": gguf_bytes() + b"PK\x03\x04" * 100,
    "cut by one byte": gguf_bytes()[:-1],
    "cut in the middle": gguf_bytes()[:200],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", HOSTILE[name])

    with pytest.raises(UserError) as refused:
        gguf.read_header(path)

    assert refused.value.code is Code.FILE_INVALID
    assert refused.value.message.startswith("m.gguf is not a sound GGUF file: ")
    assert "\n" not in refused.value.message


def _read(path: Path) -> gguf.Header | Code:
    try:
        return gguf.read_header(path)
    except UserError as error:
        return error.code


def test_500_mutated_headers_end_in_a_header_or_in_our_error(tmp_path: Path) -> None:
    sound = gguf_bytes()
    header_bytes = len(sound) - 384
    chance = random.Random(20261124)
    path, refused = tmp_path / "m.gguf", 0
    for _ in range(500):
        mutated = bytearray(sound)
        for _ in range(chance.randint(1, 6)):
            at = chance.randrange(header_bytes)
            if chance.random() < 0.5:
                mutated[at] = chance.randrange(256)
            else:  # whole counts and lengths at their edges
                edge = chance.choice([0, 1, 2**31, 2**32 - 1, 2**63, _HUGE])
                mutated[at : at + 8] = struct.pack("<Q", edge)
        path.write_bytes(mutated)
        found = _read(path)
        if isinstance(found, gguf.Header):
            assert 0 < found.parameters < 2**40
        else:
            assert found is Code.FILE_INVALID
            refused += 1
    assert refused > 350


# Each is as expensive as the caps allow it to be; a process of its own tells its peak.
EXPENSIVE = {
    "as many texts as may be": lambda: gguf_bytes([strings("x", [""] * 1_500_000)]),
    "as many tensors as may be": lambda: gguf_bytes(
        tensors=[tensor(f"{i:063d}", [32, 1, 1, 1], 0, i * 128) for i in range(16_384)],
        data_bytes=1,
    ),
    "as many long keys as may be": lambda: gguf_bytes(
        [text(f"{i:0256d}") + struct.pack("<I", STRING) + text("v" * 30_000) for i in range(2048)]
    ),
    "a template of the largest size": lambda: gguf_bytes(
        [*keys()[:-1], key("tokenizer.chat_template", STRING, "\U0001f600" * (2**18 - 1))]
    ),
    "an array to the end of the header": lambda: gguf_bytes(
        [_array(10, 4_000_000) + bytes(32 * 10**6)]
    ),
}

_MEASURE = """
import resource, sys, time
from pathlib import Path
from freehold.core import gguf
from freehold.core.errors import UserError
before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
try:
    gguf.read_header(Path(sys.argv[1]))
except UserError:
    pass
print(time.process_time() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("name", EXPENSIVE)
def test_the_most_expensive_headers_cost_little_time_and_memory(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", EXPENSIVE[name]())

    measured = subprocess.run(
        [sys.executable, "-c", _MEASURE, path], capture_output=True, text=True, check=True
    ).stdout.split()

    assert float(measured[0]) < 1.0  # of CPU time, which a busy machine does not change
    assert int(measured[1]) < 30 * 1024
