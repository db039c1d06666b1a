"""Checkpoints of decoders in safetensors: kept whole, under one digest, as they are."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from freehold.catalog.pull import pull
from freehold.catalog.store import ModelStore
from freehold.core.errors import Code, UserError
from freehold.core.ids import digest_of_files
from freehold.core.model import ModelCard, Task

_TINY = Path(__file__).parents[1] / "engines" / "openvino" / "reference" / "tiny"


@dataclass
class World:
    store: ModelStore
    home: Path
    folder: Path

    def pull(self) -> ModelCard:
        return pull(
            self.store, self.home, f"file:{self.folder}", progress=lambda *_: None,
            accept_licence="made for this test",
        )  # fmt: skip


@pytest.fixture
def world(tmp_path: Path) -> Callable[[str], World]:
    def made(name: str) -> World:
        folder = tmp_path / name
        folder.mkdir()
        for path in (_TINY / name).iterdir():
            if path.is_file() and path.suffix != ".gguf" and path.name != "reference.json":
                shutil.copy(path, folder)
        return World(ModelStore(tmp_path / "home"), tmp_path / "home", folder)

    return made


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "mistral"])
def test_a_checkpoint_is_stored_with_all_that_is_known_of_it(
    world: Callable[[str], World], name: str
) -> None:
    made = world(name)
    card = made.pull()
    assert (card.format, card.architecture, card.task) == ("safetensors", name, Task.CHAT)
    assert card.digest == digest_of_files({file.name: file.digest for file in card.files})
    assert {file.name for file in card.files} >= {"config.json", "tokenizer.json"}
    assert card.chat_template_digest
    assert card.context_length == 512
    assert card.parameters > 50_000
    for file in card.files:
        stored = made.store.blobs.path(file.digest)
        assert stored.read_bytes() == (made.folder / file.name).read_bytes()
    assert made.pull() == card
    made.store.remove(card.name)
    assert not [path for path in (made.home / "blobs").rglob("*") if path.is_file()]


def test_all_weights_of_a_checkpoint_in_parts_are_kept(world: Callable[[str], World]) -> None:
    card = world("mistral").pull()
    assert sum(file.name.endswith(".safetensors") for file in card.files) == 2


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"model_type": "gpt9"}, Code.FILE_REFUSED),
        ({"num_hidden_layers": 3}, Code.FILE_INVALID),
        ({"max_position_embeddings": "many"}, Code.FILE_INVALID),
        ({"hidden_size": -1}, Code.FILE_INVALID),
        ({"auto_map": {"AutoModel": "code.Model"}}, Code.FILE_REFUSED),
    ],
)
def test_a_checkpoint_that_contradicts_itself_or_brings_code_is_refused(
    world: Callable[[str], World], changes: dict[str, object], code: Code
) -> None:
    made = world("llama")
    config = made.folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    with pytest.raises(UserError) as refused:
        made.pull()
    assert refused.value.code is code
    assert made.store.list() == []
    assert not [path for path in (made.home / "blobs").rglob("*") if path.is_file()]
