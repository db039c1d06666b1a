"""The model store: cards by name, files by digest.

Cards are files and not database rows, so that a pull works while a gateway runs.
"""

import dataclasses
import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from freehold.catalog.blobs import Blobs, Told, digest_of, disk_error
from freehold.config.home import write_private
from freehold.core.errors import Code, UserError
from freehold.core.ids import is_digest
from freehold.core.model import (
    Conversion,
    FormatTrial,
    Licence,
    ModelCard,
    ModelFile,
    Quality,
    QualityTrial,
    Task,
)

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}\Z")


class ModelStore:
    def __init__(self, home: Path) -> None:
        self._cards = home / "models"
        self.blobs = Blobs(home)

    def list(self) -> "list[ModelCard]":
        found = sorted(self._cards.glob("[!.]*.json")) if self._cards.exists() else []
        cards = (self._read(path) for path in found)
        return [card for card in cards if card is not None]

    def get(self, name: str) -> ModelCard:
        """By name or digest. Raises `MODEL_NOT_FOUND`."""
        if is_digest(name):
            for card in self.list():
                if card.digest == name:
                    return card
        else:
            found = self.find(name)
            if found is not None:
                return found
        raise UserError(
            Code.MODEL_NOT_FOUND,
            f"There is no stored model {name[:80]!r}: pull it with `freehold model pull`.",
        )

    def find(self, name: str) -> ModelCard | None:
        return self._read(self._cards / f"{name}.json") if _NAME.match(name) else None

    def files(self, card: ModelCard) -> dict[str, Path]:
        """Where each file of the model lies, by its name."""
        return {file.name: self.blobs.path(file.digest) for file in card.files}

    def record(self, card: ModelCard, quality: Quality) -> ModelCard:
        """Puts what was measured on the card. Raises `MODEL_NOT_FOUND` when the model was
        removed or replaced meanwhile."""
        with self.changing():
            found = self.find(card.name)
            if found is None or found.digest != card.digest:
                raise UserError(
                    Code.MODEL_NOT_FOUND,
                    f"{card.name} was removed or replaced meanwhile: measure it again.",
                )
            changed = dataclasses.replace(found, quality=quality)
            self.add(changed)
        return changed

    def path(self, card: ModelCard) -> Path:
        """The main file: the weights of a one-file model, else the first weights."""
        weights = [f for f in card.files if f.name.endswith((".gguf", ".safetensors"))]
        return self.blobs.path(weights[0].digest)

    def add(self, card: ModelCard) -> None:
        """Writes the card; its files must be in `blobs` already. Call it, and what
        puts the files there, inside `changing`."""
        check_name(card.name)
        content = json.dumps(dataclasses.asdict(card), indent=1)
        try:
            self._cards.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_private(self._cards / f"{card.name}.json", content.encode())
        except OSError as error:
            raise disk_error(error, self._cards) from None

    def remove(self, name: str) -> ModelCard:
        """Forgets a card, and its files unless another card needs them."""
        with self.changing():
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
            try:
                is_sound = digest_of(self.blobs.path(file.digest), told) == file.digest
            except OSError:  # gone, unreadable, or a link put in its place
                is_sound = False
            if not is_sound:
                raise UserError(
                    Code.DIGEST_MISMATCH,
                    f"{file.name} of {card.name} is missing or was changed on the disk: remove "
                    f"it with `freehold model rm {card.name}` and pull it again.",
                )

    @contextmanager
    def changing(self) -> Iterator[None]:
        """One change at a time: otherwise a removal could take away the file that a
        pull has just put there and not yet written a card for."""
        try:
            self._cards.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(self._cards / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise disk_error(error, self._cards) from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _read(self, path: Path) -> ModelCard | None:
        """None for a card that is not there (any more)."""
        try:
            return card_of(json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, AttributeError):
            raise UserError(
                Code.FILE_INVALID, f"{path} is damaged: remove that file and pull the model again."
            ) from None


def check_name(name: str) -> None:
    """Raises `INVALID_VALUE` unless `name` can be a model's."""
    if not _NAME.match(name):
        raise UserError(
            Code.INVALID_VALUE,
            f"{name[:80]!r} cannot be a model's name: use small letters, digits, . _ -",
        )


def card_of(raw: Mapping[str, Any]) -> ModelCard:
    conversion = raw["conversion"]
    if conversion is not None:
        trials = tuple(FormatTrial(**trial) for trial in conversion["trials"])
        conversion = Conversion(**{**conversion, "trials": trials})
    quality = raw.get("quality")  # cards of older versions have none
    if quality is not None:
        measured = tuple(QualityTrial(**trial) for trial in quality["trials"])
        quality = Quality(**{**quality, "trials": measured})
    return ModelCard(
        **{
            **raw,
            "task": Task(raw["task"]),
            "licence": Licence(**raw["licence"]),
            "files": tuple(ModelFile(**file) for file in raw["files"]),
            "conversion": conversion,
            "notes": tuple(raw["notes"]),
            "quality": quality,
        }
    )
