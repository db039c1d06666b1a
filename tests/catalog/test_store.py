import errno
import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from freehold.catalog.blobs import Blobs, disk_error
from freehold.catalog.pull import pull
from freehold.catalog.store import ModelStore
from freehold.core.errors import Code, UserError
from freehold.core.model import Conversion, FormatTrial, ModelCard, Quality, QualityTrial
from tests.catalog.making import gguf_bytes, write


def _pulled(tmp_path: Path, name: str = "tiny", content: bytes | None = None) -> ModelCard:
    source = write(tmp_path / f"{name}.gguf", content or gguf_bytes())
    home = tmp_path / "home"
    return pull(ModelStore(home), home, f"file:{source}", progress=lambda *_: None)


def test_a_blob_is_named_by_its_digest_and_kept_from_others(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "home")
    digest = blobs.put(write(tmp_path / "x", b"hello"))

    path = blobs.path(digest)
    assert digest == "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    assert path.read_bytes() == b"hello"
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.parent.parent.stat().st_mode) == 0o700


def test_a_file_with_a_second_name_is_copied_so_that_it_cannot_be_changed(tmp_path: Path) -> None:
    source = write(tmp_path / "x", b"hello")
    os.link(source, tmp_path / "y")
    blobs = Blobs(tmp_path / "home")
    digest = blobs.put(source)

    (tmp_path / "y").write_bytes(b"other")

    assert blobs.path(digest).read_bytes() == b"hello"


@pytest.mark.parametrize(
    "digest",
    ["", "sha256:", "sha256:../../../etc/passwd", "sha256:" + "A" * 64, "../x", "md5:" + "a" * 32,
     "sha256:" + "a" * 64 + "\n", "sha256:" + "a" * 63 + "/"],
)  # fmt: skip
def test_a_digest_is_never_taken_for_a_path(digest: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        Blobs(tmp_path).path(digest)
    assert refused.value.code is Code.INVALID_VALUE


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_told_as_such(number: int, tmp_path: Path) -> None:
    assert disk_error(OSError(number, "x"), tmp_path).code is Code.DISK_FULL


def test_a_card_survives_being_written_and_read(tmp_path: Path) -> None:
    card = _pulled(tmp_path)
    trial = FormatTrial("Q8_0", 1.5, 2.5, 0.01, 0.9, 7, True)
    refused = replace(trial, chosen=False, refused_because="loses too much")
    conversion = Conversion(card.digest, "Q4_1", 0.05, "machine", (trial, refused))
    changed = replace(card, name="other", conversion=conversion, notes=("a", "b"))
    store = ModelStore(tmp_path / "home")

    store.add(changed)

    assert store.get("other") == changed
    assert store.list() == [changed, card]
    assert store.get(card.digest) in (card, changed)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "A", "a/b", "a" * 101, "-a", "a\n", "ä"])
def test_a_name_that_is_none_is_refused(name: str, tmp_path: Path) -> None:
    card = _pulled(tmp_path)
    store = ModelStore(tmp_path / "home")

    with pytest.raises(UserError) as refused:
        store.add(replace(card, name=name))
    assert refused.value.code is Code.INVALID_VALUE
    with pytest.raises(UserError) as missing:
        store.get(name)
    assert missing.value.code is Code.MODEL_NOT_FOUND


def test_removing_keeps_a_file_that_another_model_needs(tmp_path: Path) -> None:
    card = _pulled(tmp_path)
    store = ModelStore(tmp_path / "home")
    store.add(replace(card, name="second"))

    store.remove("tiny")
    assert store.path(card).exists()
    store.remove("second")

    assert not store.path(card).exists()
    assert store.list() == []


def test_verify_finds_one_flipped_bit(tmp_path: Path) -> None:
    card = _pulled(tmp_path)
    store = ModelStore(tmp_path / "home")
    store.verify(card)
    path = store.path(card)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)

    with pytest.raises(UserError) as found:
        store.verify(card)
    assert found.value.code is Code.DIGEST_MISMATCH


def test_verify_finds_a_file_that_is_gone_or_a_link(tmp_path: Path) -> None:
    card = _pulled(tmp_path)
    store = ModelStore(tmp_path / "home")
    path = store.path(card)
    elsewhere = path.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError) as gone:
        store.verify(card)
    path.symlink_to(elsewhere)  # the same bytes, but not ours any more
    with pytest.raises(UserError) as linked:
        store.verify(card)

    assert gone.value.code is linked.value.code is Code.DIGEST_MISMATCH


def test_a_damaged_card_is_named(tmp_path: Path) -> None:
    _pulled(tmp_path)
    (tmp_path / "home" / "models" / "tiny.json").write_text('{"name": "tiny"')

    with pytest.raises(UserError) as found:
        ModelStore(tmp_path / "home").list()
    assert found.value.code is Code.FILE_INVALID
    assert "tiny.json" in found.value.message


def _quality() -> Quality:
    trial = QualityTrial("int8", "u8", 20.5, 0.007, 0.03, 0.93, 10**8, 13680, 60.0, 240.0, False)
    return Quality("openvino", "a machine", "ab12", 1, 1788, 0.05, (trial,))


def test_a_card_keeps_what_was_measured(tmp_path: Path) -> None:
    card = _pulled(tmp_path)
    store = ModelStore(tmp_path / "home")

    measured = store.record(card, _quality())

    assert measured == store.get("tiny") == replace(card, quality=_quality())


def test_a_card_of_before_formats_were_measured_is_read(tmp_path: Path) -> None:
    card = _pulled(tmp_path)
    path = tmp_path / "home" / "models" / "tiny.json"
    raw = json.loads(path.read_bytes())
    del raw["quality"]
    path.write_text(json.dumps(raw))

    assert ModelStore(tmp_path / "home").get("tiny") == card


def test_a_model_that_was_replaced_meanwhile_gets_no_measurement_of_another(
    tmp_path: Path,
) -> None:
    card = _pulled(tmp_path)
    store = ModelStore(tmp_path / "home")
    store.add(replace(card, digest="sha256:" + "ab" * 32))

    with pytest.raises(UserError, match="removed or replaced"):
        store.record(card, _quality())
    store.remove("tiny")
    with pytest.raises(UserError, match="removed or replaced"):
        store.record(card, _quality())
    assert store.find("tiny") is None
