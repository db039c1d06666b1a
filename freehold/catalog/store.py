"""The model store: cards by name, files by digest.

Cards are files and not database rows, so that a pull works while a gateway runs.
"""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

from freehold.catalog.blobs import Blobs, Told, digest_of
from freehold.config.home import write_private
from freehold.core.errors import Code, UserError
from freehold.core.ids import is_digest
from freehold.core.model import Conversion, FormatTrial, Licence, ModelCard, ModelFile, Task

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}\Z")


class ModelStore:
    def __init__(self, home: Path) -> None:
        self._cards = home / "models"
        self.blobs = Blobs(home)

    def list(self) -> "list[ModelCard]":
        found = sorted(self._cards.glob("*.json")) if self._cards.exists() else []
        return [_decode(json.loads(path.read_bytes())) for path in found]

    def get(self, name: str) -> ModelCard:
        """By name or digest. Raises `MODEL_NOT_FOUND`."""
        if is_digest(name):
            for card in self.list():
                if card.digest == name:
                    return card
        elif _NAME.match(name) and (self._cards / f"{name}.json").exists():
            return _decode(json.loads((self._cards / f"{name}.json").read_bytes()))
        raise UserError(
            Code.MODEL_NOT_FOUND,
            f"There is no stored model {name[:80]!r}: pull it with `freehold model pull`.",
        )

    def path(self, card: ModelCard) -> Path:
        """The main file: the weights of a one-file model, else the first weights."""
        weights = [f for f in card.files if f.name.endswith((".gguf", ".safetensors"))]
        return self.blobs.path(weights[0].digest)

    def add(self, card: ModelCard) -> None:
        if not _NAME.match(card.name):
            raise UserError(
                Code.INVALID_VALUE,
                f"{card.name[:80]!r} cannot be a model's name: use small letters, digits, . _ -",
            )
        self._cards.mkdir(mode=0o700, parents=True, exist_ok=True)
        content = json.dumps(dataclasses.asdict(card), indent=1)
        write_private(self._cards / f"{card.name}.json", content.encode())

    def remove(self, name: str) -> ModelCard:
        """Forgets a card, and its files unless another card needs them."""
        card = self.get(name)
        (self._cards / f"{card.name}.json").unlink()
        kept = {file.digest for other in self.list() for file in other.files}
        for file in card.files:
            if file.digest not in kept:
                self.blobs.remove(file.digest)
        return card

    def verify(self, card: ModelCard, told: Told | None = None) -> None:
        """Reads every byte again. Raises `DIGEST_MISMATCH` naming the file."""
        for file in card.files:
            path = self.blobs.path(file.digest)
            if not path.exists() or digest_of(path, told) != file.digest:
                raise UserError(
                    Code.DIGEST_MISMATCH,
                    f"{file.name} of {card.name} is missing or was changed on the disk: remove "
                    f"it with `freehold model rm {card.name}` and pull it again.",
                )


def _decode(raw: dict[str, Any]) -> ModelCard:
    conversion = raw["conversion"]
    if conversion is not None:
        trials = tuple(FormatTrial(**trial) for trial in conversion["trials"])
        conversion = Conversion(**{**conversion, "trials": trials})
    return ModelCard(
        **{
            **raw,
            "task": Task(raw["task"]),
            "licence": Licence(**raw["licence"]),
            "files": tuple(ModelFile(**file) for file in raw["files"]),
            "conversion": conversion,
            "notes": tuple(raw["notes"]),
        }
    )
