"""What may become a tenant's adapter: plain LoRA of the base that it was trained on,
finite and small, and nothing else; a refusal says why and keeps nothing."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from freehold.catalog.adapters import Adapters, Wanted, stage, staging, unstage
from freehold.catalog.pull import pull
from freehold.catalog.signatures import Signatures
from freehold.catalog.store import ModelStore
from freehold.config.schema import SupplySettings
from freehold.core.adapter import Adapter
from freehold.core.binding import Environment
from freehold.core.clock import SystemClock
from freehold.core.errors import Code, UserError
from freehold.core.model import ModelCard
from freehold.core.peft import RankLimit
from freehold.store.sql import SqlStore
from tests.catalog.making import decoder_bytes, gguf_bytes, peft_folder, safetensors_bytes, write
from tests.databases import stock

_PREFIX = "base_model.model.model"


class Shelf:
    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.home.mkdir()
        self.store = SqlStore(stock(self.home / "freehold.db"))
        self.models = ModelStore(self.home)
        self.limits = {"base": RankLimit(16, "engines.vllm.max_rank")}
        clock, key = SystemClock(), self.home / "signing"
        signatures = Signatures(key, self.store, SupplySettings(), clock)
        self.adapters = Adapters(self.home, self.store, self.models, signatures, clock, self.limit)
        for name, content in (("base", decoder_bytes()), ("other", gguf_bytes())):
            file = write(folder / f"{name}.gguf", content)
            pull(self.models, self.home, f"file:{file}", progress=lambda *_: None)

    def limit(self, base: ModelCard) -> RankLimit:
        return self.limits.get(base.name, RankLimit())

    def add(self, folder: Path, name: str = "a", base: str = "base") -> Adapter:
        ticket = stage(self.home, folder)
        wanted = Wanted(ticket, base, name, f"file:{folder}")
        return self.adapters.add("ten_a", Environment.DEV, wanted)

    @property
    def left(self) -> tuple[int, int, int]:
        """Files, rows, and what lies in the staging folder."""
        blobs = len(list((self.home / "blobs" / "sha256").iterdir()))
        rows = len(self.adapters.page("ten_a", Environment.DEV, 100))
        return blobs - 2, rows, len(list(staging(self.home).glob("*")))


@pytest.fixture
def shelf(tmp_path: Path) -> Any:
    made = Shelf(tmp_path)
    yield made
    made.store.close()


def test_what_is_kept_says_what_it_changes(shelf: Shelf, tmp_path: Path) -> None:
    folder = peft_folder(
        tmp_path / "in", rank=4, linears=("down_proj", "q_proj"),
        alpha_pattern={"q_proj": 2},
    )  # fmt: skip
    added = shelf.add(folder)
    assert (added.rank, added.scaling) == (4, "0.5 to 2")
    assert added.target_modules == ("down_proj", "q_proj")
    assert added.base_digest == shelf.models.get("base").digest
    assert added.size_bytes == sum(path.stat().st_size for path in folder.iterdir())
    assert shelf.left == (2, 1, 0)
    for digest in (added.config_digest, added.weights_digest):
        assert shelf.adapters.path(digest).stat().st_mode & 0o777 == 0o400


def _tensor(name: str, shape: list[int]) -> dict[str, list[int]]:
    return {f"{_PREFIX}.{name}": shape}


_BAD: dict[str, Callable[[Path], Path]] = {
    "48 and should be": lambda at: peft_folder(at, width=48),
    "layer 2 of a base that has 2": lambda at: peft_folder(at, layers=3),
    "rank 17 and the limit is 16: raise `engines.vllm.max_rank`": lambda at: peft_folder(
        at, rank=17
    ),
    "should be 4 x 32": lambda at: peft_folder(at, rank=2, r=4),
    "head (lm_head)": lambda at: peft_folder(
        at, extra={"base_model.model.lm_head.weight": [8, 32]}
    ),
    "changes the embedding": lambda at: peft_folder(
        at, extra=_tensor("embed_tokens.lora_embedding_A", [2, 8])
    ),
    "not supported ('base_model.model.model.norm": lambda at: peft_folder(
        at, extra=_tensor("norm.weight", [32])
    ),
    "peft_type is 'IA3'": lambda at: peft_folder(at, peft_type="IA3"),
    "'modules_to_save' is not": lambda at: peft_folder(at, modules_to_save=["lm_head"]),
    "'use_dora' is not": lambda at: peft_folder(at, use_dora=True),
    "biases": lambda at: peft_folder(at, bias="all"),
    "not finite": lambda at: peft_folder(at, value=float("nan")),
    "that is not finite": lambda at: peft_folder(at, value=float("inf")),
    "lora_alpha": lambda at: peft_folder(at, lora_alpha=-1),
    "asks for code": lambda at: peft_folder(at, auto_map={"a": "b.C"}),
}


@pytest.mark.parametrize("why", _BAD)
def test_bad_adapters_are_refused_with_the_reason(shelf: Shelf, tmp_path: Path, why: str) -> None:
    with pytest.raises(UserError) as refused:
        shelf.add(_BAD[why](tmp_path / "in"))
    assert refused.value.code is Code.FILE_REFUSED
    assert why in refused.value.message
    assert shelf.left == (0, 0, 0)


def test_files_that_are_none_are_refused(shelf: Shelf, tmp_path: Path) -> None:
    weights = tmp_path / "in" / "adapter_model.safetensors"
    for content in (b"", b"\x80\x02}q\x00.", safetensors_bytes()[:-1], b"\xff" * 200):
        peft_folder(tmp_path / "in")
        weights.write_bytes(content)
        with pytest.raises(UserError) as refused:
            shelf.add(tmp_path / "in")
        assert refused.value.code is Code.FILE_INVALID
    peft_folder(tmp_path / "in")
    config = tmp_path / "in" / "adapter_config.json"
    for text in ("[]", "{", '{"r": 1, "r": 2}', json.dumps({"x": "y" * 300_000})):
        config.write_text(text)
        with pytest.raises(UserError) as refused:
            shelf.add(tmp_path / "in")
        assert refused.value.code in (Code.FILE_INVALID, Code.FILE_REFUSED)
    assert shelf.left == (0, 0, 0)


def test_a_base_without_known_layers_takes_none(shelf: Shelf, tmp_path: Path) -> None:
    file = write(tmp_path / "uneven.gguf", decoder_bytes(q_proj=1))
    pull(shelf.models, shelf.home, f"file:{file}", progress=lambda *_: None)
    for base in ("other", "uneven"):
        with pytest.raises(UserError, match=f"{base} has no layers") as refused:
            shelf.add(peft_folder(tmp_path / "in"), base=base)
        assert refused.value.param == "base"


def test_what_is_no_plain_file_is_never_waited_for(shelf: Shelf, tmp_path: Path) -> None:
    folder = peft_folder(tmp_path / "in")
    real = folder / "adapter_model.safetensors"
    real.rename(tmp_path / "weights")
    os.mkfifo(real)
    with pytest.raises(UserError, match="not a plain file"):
        stage(shelf.home, folder)
    real.unlink()
    real.symlink_to(tmp_path / "weights")  # as hubs' caches are made
    assert shelf.add(folder).name == "a"
    assert shelf.left == (2, 1, 0)


def test_an_upload_serves_once_and_its_name_is_no_path(shelf: Shelf, tmp_path: Path) -> None:
    ticket = stage(shelf.home, peft_folder(tmp_path / "in"))
    shelf.adapters.add("ten_a", Environment.DEV, Wanted(ticket, "base", "a", ""))
    for wrong, code in (
        (ticket, Code.NOT_FOUND), ("../" + ticket, Code.INVALID_VALUE), ("", Code.INVALID_VALUE),
        (ticket + "\n", Code.INVALID_VALUE),
    ):  # fmt: skip
        with pytest.raises(UserError) as refused:
            shelf.adapters.add("ten_a", Environment.DEV, Wanted(wrong, "base", "b", ""))
        assert refused.value.code is code
    unstage(shelf.home, ticket)


def test_adding_again_mends_what_a_disk_has_spoilt(shelf: Shelf, tmp_path: Path) -> None:
    folder = peft_folder(tmp_path / "in")
    added = shelf.add(folder)
    path = shelf.adapters.path(added.weights_digest)
    sound = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(sound[:-1] + b"x")
    assert shelf.add(folder) == added
    assert path.read_bytes() == sound


def test_a_store_that_fails_keeps_no_files(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise UserError(Code.STORAGE_UNAVAILABLE, "Not now.")

    monkeypatch.setattr(shelf.store, "add_adapters", fails)
    with pytest.raises(UserError, match="Not now"):
        shelf.add(peft_folder(tmp_path / "in"))
    assert shelf.left == (0, 0, 0)
