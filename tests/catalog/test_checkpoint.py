"""Checkpoints of decoders in safetensors: kept whole, under one digest, as they are."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from freehold.catalog import checkpoint
from freehold.catalog.pull import pull
from freehold.catalog.store import ModelStore
from freehold.core import peft
from freehold.core.errors import Code, UserError
from freehold.core.ids import digest_of_files
from freehold.core.model import ModelCard, Task
from freehold.core.safetensors import Tensor

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


def test_a_checkpoint_of_a_family_that_no_engine_of_ours_computes_is_kept_for_those_that_do(
    world: Callable[[str], World],
) -> None:
    made = world("llama")
    config = made.folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": "gemma2"}))
    card = made.pull()
    assert (card.format, card.architecture) == ("safetensors", "gemma2")
    header = checkpoint.read(made.store.files(card))
    assert header is not None
    assert len(header.linears) == 7


def test_adapters_of_a_mixture_change_what_its_layers_have_in_common() -> None:
    """The experts' linears have other names, and are left alone."""
    linears = {"q_proj": (8, 8), "k_proj": (8, 4), "v_proj": (8, 4), "o_proj": (8, 8)}
    config = json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4}).encode()

    def tensors(block: str, name: str, inputs: int, outputs: int) -> list[Tensor]:
        module = f"base_model.model.model.layers.0.{block}.{name}"
        return [
            Tensor(f"{module}.lora_A.weight", "F32", (2, inputs), 0, 8 * inputs),
            Tensor(f"{module}.lora_B.weight", "F32", (outputs, 2), 0, 8 * outputs),
        ]

    lora = peft.check(config, tensors("self_attn", "q_proj", 8, 8), linears, 1, peft.RankLimit())
    assert [each.linear for each in lora.factors] == ["q_proj"]
    with pytest.raises(UserError, match="a tensor that is not supported"):
        peft.check(config, tensors("mlp", "down_proj", 8, 8), linears, 1, peft.RankLimit())
