"""The datasets of tenants: folders under `data/`, rows in the store.

As with adapters, what comes in is laid into a folder with a random name under
`cache/datasets/` first, by who may write there, and asked for by that name.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freehold.catalog.blobs import disk_error
from freehold.core.acts import acting
from freehold.core.binding import Environment
from freehold.core.clock import Clock
from freehold.core.dataset import HELD_OUT, REPORT, TRAIN, Dataset, DatasetKind
from freehold.core.errors import Code, UserError
from freehold.core.ids import digest_of_files, new_id
from freehold.store.base import DatasetStore

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
_LICENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+() -]{0,99}\Z")
_TICKET = re.compile(r"[0-9a-f]{32}\Z")
_ABANDONED_S = 24 * 3600
_MAX_REPORT = 1024 * 1024
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Wanted:
    """A dataset to be taken in: `ticket` names the folder that `staged` made. `accept` is
    why what its report warns of may be in it. `data_keys` are those of the people whose words
    it holds, where that is known."""

    ticket: str
    name: str
    licence: str
    origin: str
    accept: str | None = None
    data_keys: frozenset[str] = frozenset()


class Datasets:
    """One a process; safe from any thread."""

    def __init__(self, home: Path, store: DatasetStore, clock: Clock) -> None:
        self._home = home
        self._store = store
        self._clock = clock
        self._changing = threading.Lock()

    def page(
        self, tenant_id: str, environment: Environment, limit: int, after: str = ""
    ) -> Sequence[Dataset]:
        return self._store.datasets(tenant_id, environment, limit, after)

    def get(self, tenant_id: str, environment: Environment, reference: str) -> Dataset:
        """By name (its newest version), `name@version`, id or digest. Raises `NOT_FOUND`,
        alike for what is somebody else's."""
        found = self._store.dataset(tenant_id, environment, reference)
        if found is None:
            raise UserError(
                Code.NOT_FOUND,
                f"There is no dataset {reference[:80]!r} in {environment}: see "
                "`freehold data list`.",
            )
        return found

    def report(self, dataset: Dataset) -> dict[str, Any] | None:
        """None where its files are gone."""
        try:
            found: dict[str, Any] = json.loads((self._folder(dataset) / REPORT).read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        return found

    def files(self, dataset: Dataset) -> Path:
        """The folder of its files, which are what they were. Raises `FILE_INVALID`, and
        `CONFLICT` where somebody whose words it holds was forgotten."""
        folder = self._folder(dataset)
        if self._store.is_remembered(dataset.tenant_id, dataset.digest):
            raise UserError(
                Code.CONFLICT,
                f"{dataset.name}@{dataset.version} holds words of somebody who was forgotten: make "
                "it again with `freehold data from-feedback`, and remove this version.",
                param="dataset",
            )
        if not is_whole(self._home, dataset):
            raise UserError(
                Code.FILE_INVALID,
                f"The files of {dataset.name}@{dataset.version} in {folder} are missing or were "
                "changed: add the dataset again.",
            )
        return folder

    def add(self, tenant_id: str, environment: Environment, wanted: Wanted) -> Dataset:
        """Takes in what was staged; the same again changes nothing. Raises `UserError`;
        then nothing is kept, and the staged files are gone either way."""
        if not _TICKET.match(wanted.ticket):
            raise UserError(Code.INVALID_VALUE, "This is no upload's ticket.", param="upload")
        folder = staging(self._home) / wanted.ticket
        try:
            if not folder.is_dir():
                raise UserError(
                    Code.NOT_FOUND, "This upload is not there (any more): add the dataset again."
                )
            check_said(wanted.name, wanted.licence, wanted.origin)
            with self._changing:
                return self._add(tenant_id, environment, wanted, folder)
        except OSError as error:
            raise disk_error(error, self._home) from None
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def remove(self, tenant_id: str, environment: Environment, reference: str) -> Dataset:
        """Forgets one version, and its files."""
        with self._changing:
            dataset = self.get(tenant_id, environment, reference)
            findings = (self.report(dataset) or {}).get("needs_acceptance", ())
            self._store.remove_dataset(tenant_id, dataset.id, findings)
            self._drop_files(dataset)
        return dataset

    def _add(
        self, tenant_id: str, environment: Environment, wanted: Wanted, folder: Path
    ) -> Dataset:
        report = _report(folder)
        _check_accepted(wanted, report)
        digest, (train, held_out) = measured(folder)
        newest = self._store.dataset(tenant_id, environment, wanted.name)
        said = (digest, wanted.licence, wanted.origin)
        dataset = Dataset(
            id=new_id("dat"),
            tenant_id=tenant_id,
            environment=environment,
            name=wanted.name,
            version=newest.version + 1 if newest else 1,
            digest=digest,
            kind=DatasetKind(report["kind"]),
            train=train,
            held_out=held_out,
            licence=wanted.licence,
            origin=wanted.origin,
            created_at_us=self._clock.wall_us(),
            created_by=_who(),
            accepted=wanted.accept if report["needs_acceptance"] else None,
        )
        is_same = newest is not None and said == (newest.digest, newest.licence, newest.origin)
        stored = newest if newest is not None and is_same else dataset
        if wanted.data_keys:
            self._store.add_words(tenant_id, digest, wanted.data_keys)
        were_there = self._folder(stored).is_dir()
        self._keep(folder, stored)
        if stored is dataset:
            try:
                self._store.add_dataset(tenant_id, dataset)
            except UserError:
                if not were_there:
                    self._drop_files(dataset)
                raise
        return stored

    def _drop_files(self, dataset: Dataset) -> None:
        """Unless a row needs them."""
        if self._store.dataset(dataset.tenant_id, dataset.environment, dataset.digest) is None:
            shutil.rmtree(self._folder(dataset), ignore_errors=True)

    def _keep(self, folder: Path, dataset: Dataset) -> None:
        """Laid over what is there already: a disk may have spoilt it. Without a row, files
        are nobody's, so a death between the two leaves no half dataset."""
        target = self._folder(dataset)
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for each in (self._home / "data", target.parent.parent, target.parent):
            each.chmod(0o700)
        for name in (TRAIN, HELD_OUT, REPORT):
            _settled(folder / name)
        if target.is_dir():  # one by one: at no moment is none of them there
            for name in (TRAIN, HELD_OUT, REPORT):
                (folder / name).replace(target / name)
            _settled(target)
        else:
            folder.rename(target)
        _settled(target.parent)

    def _folder(self, dataset: Dataset) -> Path:
        return self._home / dataset.place


def check_said(name: str, licence: str, origin: str) -> None:
    """Raises `INVALID_VALUE` for words about a dataset that cannot be kept."""
    if not _NAME.match(name):
        raise UserError(
            Code.INVALID_VALUE,
            f"{name[:80]!r} cannot be a dataset's name: use letters, digits, . _ -",
            param="name",
        )
    if not _LICENCE.match(licence):
        raise UserError(
            Code.INVALID_VALUE,
            "The licence must be an SPDX name such as CC-BY-4.0, or LicenseRef-own for data of "
            "your own.",
            param="licence",
        )
    if not origin.strip():
        raise UserError(
            Code.INVALID_VALUE, "Say where the data come from, with --origin.", param="origin"
        )


def _check_accepted(wanted: Wanted, report: dict[str, Any]) -> None:
    needs = report["needs_acceptance"]
    if needs and not (wanted.accept or "").strip():
        shown = "; ".join(needs[:_SHOWN]) + ("; …" if needs[_SHOWN:] else "")
        raise UserError(
            Code.FILE_REFUSED,
            f"The data hold {shown}: take that out (`--redact` does for secrets), or say with "
            "`--accept-findings` why it may stay.",
            param="accept_findings",
        )


def _report(folder: Path) -> dict[str, Any]:
    try:
        if (folder / REPORT).stat().st_size > _MAX_REPORT:
            raise ValueError
        found: dict[str, Any] = json.loads((folder / REPORT).read_bytes())
        DatasetKind(found["kind"])
        list(found["needs_acceptance"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        raise UserError(
            Code.FILE_INVALID, "This upload is not whole: add the dataset again."
        ) from None
    return found


def is_whole(home: Path, dataset: Dataset) -> bool:
    """Whether its files are there and what they were."""
    try:
        digest, _ = measured(home / dataset.place)
    except OSError:
        return False
    return digest == dataset.digest


def measured(folder: Path) -> tuple[str, tuple[int, int]]:
    """The digest of both files, and how many examples each has."""
    digests, counts = {}, []
    for name in (TRAIN, HELD_OUT):
        state, count = hashlib.sha256(), 0
        with (folder / name).open("rb") as file:
            for line in file:
                state.update(line)
                count += 1
        digests[name] = f"sha256:{state.hexdigest()}"
        counts.append(count)
    return digest_of_files(digests), (counts[0], counts[1])


def _settled(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _who() -> str:
    who = acting()
    return who.principal if who is not None else ""


def _sweep(folder: Path) -> None:
    for each in folder.iterdir():
        try:
            is_old = time.time() - each.stat().st_mtime > _ABANDONED_S
        except FileNotFoundError:  # another command's, which just ended
            continue
        if is_old:
            shutil.rmtree(each, ignore_errors=True)


def staging(home: Path) -> Path:
    return home / "cache" / "datasets"


@contextmanager
def staged(home: Path) -> Iterator[tuple[str, Path]]:
    """A ticket, and the folder to be filled; both are gone at the end. What a killed command
    left there goes after a day."""
    ticket = secrets.token_hex(16)
    folder = staging(home) / ticket
    try:
        folder.mkdir(mode=0o700, parents=True)
        _sweep(staging(home))
    except OSError as error:
        raise disk_error(error, folder) from None
    try:
        yield ticket, folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
