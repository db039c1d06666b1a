"""What is kept of a model on the disk: whole or not at all, whatever happened meanwhile."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from freehold.engines.openvino.prepared import Prepared, prepare

_TINY = Path(__file__).parent / "reference" / "tiny" / "qwen3"
_FILES = {path.name: path for path in _TINY.iterdir() if path.is_file() and path.suffix != ".gguf"}
_DIGEST = "sha256:" + "7" * 64
# A process that keeps a model. It may write so many bytes to a file: then it is killed
# outright, or told that there is no more room. Or it is killed before the last step, which
# gives the file its name.
_CHILD = """
import os, resource, signal, sys
from pathlib import Path
from freehold.engines.openvino.prepared import prepare

most, way, kept_in, *files = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
if way == "before-its-name":
    sys.addaudithook(lambda event, _: event == "os.rename" and os.kill(os.getpid(), 9))
else:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(most), int(most)))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL if way == "killed" else signal.SIG_IGN)
prepare("DIGEST", {Path(each).name: Path(each) for each in files}, "int8", Path(kept_in))
""".replace("DIGEST", _DIGEST)


def _prepare(kept_in: Path | None) -> Prepared:
    return prepare(_DIGEST, _FILES, "int8", kept_in)


def _assert_equal(one: Prepared, other: Prepared) -> None:
    assert one.shape == other.shape
    assert np.array_equal(one.inverse_frequencies, other.inverse_frequencies)
    for name, matrix in other.matrices.items():
        parts = one.matrices[name].parts()
        assert one.matrices[name].format == matrix.format
        assert parts.keys() == matrix.parts().keys()
        assert all(np.array_equal(parts[part], found) for part, found in matrix.parts().items())
    assert one.matrices.keys() == other.matrices.keys()
    assert one.vectors.keys() == other.vectors.keys()
    assert all(np.array_equal(one.vectors[name], found) for name, found in other.vectors.items())


@pytest.fixture(scope="module")
def size(tmp_path_factory: pytest.TempPathFactory) -> int:
    """Of what is kept."""
    folder = tmp_path_factory.mktemp("kept")
    _prepare(folder)
    (kept,) = folder.iterdir()
    return kept.stat().st_size


def test_what_was_kept_is_what_was_made_and_is_not_made_again(tmp_path: Path) -> None:
    made = _prepare(None)
    _assert_equal(_prepare(tmp_path), made)
    (kept,) = tmp_path.iterdir()
    written = kept.stat()
    _assert_equal(_prepare(tmp_path), made)
    assert kept.stat().st_mtime_ns == written.st_mtime_ns


@pytest.mark.parametrize("way", ["killed", "full"])
@pytest.mark.parametrize("part", [0.0, 0.5, 1.0])
def test_a_start_that_dies_or_finds_no_room_while_it_keeps_a_model_leaves_nothing_false(
    tmp_path: Path, size: int, part: float, way: str
) -> None:
    _ends(tmp_path, max(1, int(size * part) - 1), way)


def test_a_start_that_is_killed_before_the_kept_file_has_its_name_leaves_nothing_false(
    tmp_path: Path,
) -> None:
    _ends(tmp_path, 0, "before-its-name")


@pytest.mark.parametrize("length", [0, 5, 5000])
def test_a_kept_file_that_was_cut_short_is_made_again(length: int, tmp_path: Path) -> None:
    made = _prepare(tmp_path)
    (kept,) = tmp_path.iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(whole[:length])
    _assert_equal(_prepare(tmp_path), made)
    assert kept.read_bytes() == whole


def _ends(folder: Path, most: int, way: str) -> None:
    files = [str(path) for path in _FILES.values()]
    command = [sys.executable, "-c", _CHILD, str(most), way, str(folder), *files]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    found = list(folder.iterdir())
    if way == "full":  # it goes on with what it made, and takes no room for nothing
        assert (ended.returncode, found) == (0, []), ended.stderr
    else:
        assert ended.returncode < 0, ended.stderr
        assert [path.suffix for path in found] == [".half"]
    _assert_equal(_prepare(folder), _prepare(None))
    (kept,) = folder.iterdir()
    assert kept.suffix != ".half"


@pytest.mark.parametrize("at", [0.001, 0.5, 0.999])
def test_a_kept_file_that_was_changed_on_the_disk_is_made_again(tmp_path: Path, at: float) -> None:
    made = _prepare(tmp_path)
    (kept,) = tmp_path.iterdir()
    before = kept.read_bytes()
    changed = bytearray(before)
    changed[int(len(changed) * at)] ^= 1
    kept.unlink()  # `made` reads it as it was
    kept.write_bytes(changed)
    _assert_equal(_prepare(tmp_path), made)
    assert kept.read_bytes() == before
