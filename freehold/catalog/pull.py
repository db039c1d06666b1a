"""Brings a model in: fetch, examine, ask for the licence, convert, keep.

Everything happens in a quarantine folder first; the store changes in one step at
the end, so that a pull which fails or is killed leaves the store as it was. What a
broken download left in quarantine is taken up again by the next pull of the same
reference.
"""

import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from freehold.catalog import admit, bert, checkpoint, known, licences, sources
from freehold.catalog.blobs import digest_of, disk_error
from freehold.catalog.fetched import Fetched, Progress
from freehold.catalog.store import ModelStore, check_name
from freehold.core import gguf
from freehold.core.errors import Code, UserError
from freehold.core.ids import digest_of_files
from freehold.core.model import Conversion, Licence, ModelCard, ModelFile, Task

_READS_TOOLS = re.compile(r"\{[%{][^{}]*\btools\b")
ChooseFormat = Callable[[Path, gguf.Header, Progress], tuple[Path, Conversion | None]]


@dataclass(frozen=True, slots=True)
class _Found:
    """What came out of the quarantine alive: one file, or those of a checkpoint, the
    first weights before all."""

    files: tuple[Path, ...]
    header: gguf.Header
    source: str
    said: Fetched


def pull(
    store: ModelStore,
    home: Path,
    reference: str,
    *,
    progress: Progress,
    name: str | None = None,
    accept_licence: str | None = None,
    choose_format: ChooseFormat | None = None,
) -> ModelCard:
    """The card of the stored model; one that is stored already and sound is not
    fetched again. Raises `UserError`; then the store is unchanged."""
    entry = known.find(reference)
    title = name or (entry.name if entry else _name_of(reference))
    check_name(title)
    stored = store.find(title)
    if stored is not None and _is_same(store, stored, entry, reference, progress):
        return stored
    if entry is not None:  # before gigabytes are fetched for nothing
        licences.gate(title, licences.named(entry.licence), accept_licence)
    with _quarantine(home, reference) as folder:
        found = _fetch(entry, reference, folder, progress)
        with _gone_afterwards(folder):  # it is complete: nothing to go on from
            entry = entry or _reserved(title, found)
            said = [
                entry.licence if entry else "",
                found.header.licence or "",
                found.said.licence or "",
            ]
            licence = licences.gate(title, licences.agreed(said), accept_licence)
            served, conversion = found.files, None
            is_chat = _task(entry, found.header) is Task.CHAT
            if choose_format is not None and is_chat and len(served) == 1:
                best, conversion = choose_format(served[0], found.header, progress)
                served = (best,)
            progress("Storing", 0, 0)
            return _keep(store, title, found, served, licence, conversion, entry)


def _is_same(
    store: ModelStore,
    stored: ModelCard,
    entry: known.Known | None,
    reference: str,
    progress: Progress,
) -> bool:
    """Whether what is stored is what was asked for; False when it must be fetched
    again. Raises `CONFLICT`: a name never changes what it stands for by itself."""
    known_sources = entry.sources if entry else ()
    if stored.source not in {reference, *(source.reference for source in known_sources)}:
        raise UserError(
            Code.CONFLICT,
            f"{stored.name} is stored already, from {stored.source}: give this one another name "
            f"with --name, or remove that one with `freehold model rm {stored.name}`.",
        )
    try:
        store.verify(
            stored, lambda done, total: progress(f"Verifying the stored {stored.name}", done, total)
        )
    except UserError as error:
        if error.code is not Code.DIGEST_MISMATCH:
            raise
        progress(f"The stored {stored.name} is damaged: fetching it again", 0, 0)
        return False
    return True


def _reserved(title: str, found: _Found) -> known.Known | None:
    """A name of the catalog is only for the file that the catalog knows by digest,
    wherever that came from (a memory stick, say)."""
    entry = known.find(title)
    if entry is None:
        return None
    if digest_of(found.files[0]) not in {source.digest for source in entry.sources}:
        raise UserError(
            Code.CONFLICT,
            f"{title} is the name of another model in the catalog: give this one its own with "
            "--name.",
        )
    return entry


@contextmanager
def _quarantine(home: Path, reference: str) -> Iterator[Path]:
    """A folder for this reference alone, gone afterwards unless the network failed or
    the user stopped the pull: then the next one goes on from there."""
    folder = home / "cache" / "pulls" / hashlib.sha256(reference.encode()).hexdigest()[:16]
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise disk_error(error, folder) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise UserError(
            Code.CONFLICT, f"{reference} is being pulled already: wait for that pull to end."
        ) from None
    try:
        yield folder
    except UserError as error:
        if error.code is not Code.SOURCE_UNREACHABLE:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    except Exception:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except BaseException:  # the user stopped it
        if not any(path.is_file() for path in folder.rglob("*")):
            shutil.rmtree(folder, ignore_errors=True)
        raise
    else:
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(handle)


@contextmanager
def _gone_afterwards(folder: Path) -> Iterator[None]:
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fetch(entry: known.Known | None, reference: str, folder: Path, progress: Progress) -> _Found:
    """From the first source that can be reached."""
    every = entry.sources if entry else (known.KnownSource(reference, None, 0),)
    for index, source in enumerate(every):
        into = folder / str(index)
        into.mkdir(mode=0o700, exist_ok=True)
        try:
            said = sources.fetch(source.reference, into, progress, source.size_bytes)
        except UserError as error:
            if error.code is not Code.SOURCE_UNREACHABLE or source is every[-1]:
                raise
            shown = error.message.split(":")[0]
            progress(f"{shown}; trying {every[index + 1].reference} instead", 0, 0)
            continue
        files = admit.check(into)
        _check_pinned(source, files)
        kept, header = _described(files, into, progress)
        return _Found(kept, header, source.reference, said)
    raise UserError(Code.SOURCE_NOT_FOUND, f"{reference} has no source.")


def _check_pinned(source: known.KnownSource, files: list[Path]) -> None:
    if source.digest is None:
        return
    found = [digest_of(path) for path in files if path.suffix.lower() in admit.WEIGHTS]
    if found != [source.digest]:
        raise UserError(
            Code.DIGEST_MISMATCH,
            f"{source.reference} gave another file ({', '.join(found)}) than the catalog knows "
            f"({source.digest}): it was not stored.",
        )


def _described(
    files: list[Path], folder: Path, progress: Progress
) -> tuple[tuple[Path, ...], gguf.Header]:
    """What is kept of the fetched files, and what it is."""
    found = [path for path in files if path.suffix.lower() == ".gguf"]
    if len(found) > 1:
        raise UserError(
            Code.FILE_REFUSED, f"This source holds {len(found)} GGUF files: name the one you want."
        )
    if not found:
        kept = checkpoint.files_of(files)
        header = checkpoint.read({path.name: path for path in kept})
        if header is not None:
            return kept, header
        progress("Converting safetensors to GGUF", 0, 0)
        found = [bert.convert(files, folder)]
    return (found[0],), gguf.read_header(found[0])


def _keep(
    store: ModelStore,
    name: str,
    found: _Found,
    served: tuple[Path, ...],
    licence: Licence,
    conversion: Conversion | None,
    entry: known.Known | None,
) -> ModelCard:
    sizes = [path.stat().st_size for path in served]
    with store.changing(), _taken_back(store) as put:
        for path in served:
            put.append(store.blobs.put(path))
        files = tuple(map(ModelFile, [path.name for path in served], put, sizes))
        header = _header(store, files)  # of what will be served
        template = header.chat_template
        card = ModelCard(
            name=name,
            digest=_digest(files),
            task=_task(entry, header),
            format="gguf" if served[0].suffix.lower() == ".gguf" else "safetensors",
            architecture=header.architecture,
            parameters=header.parameters,
            quantization=header.quantization,
            context_length=header.context_length,
            embedding_length=header.embedding_length,
            licence=licence,
            source=found.source,
            files=files,
            added_at_us=time.time_ns() // 1000,
            smoke=entry.smoke if entry else False,
            chat_template_digest=(
                f"sha256:{hashlib.sha256(template.encode()).hexdigest()}" if template else None
            ),
            template_reads_tools=bool(template and _READS_TOOLS.search(template)),
            conversion=conversion,
            notes=(found.said.note,) if found.said.note else (),
        )
        store.add(card)
    return card


def _header(store: ModelStore, files: tuple[ModelFile, ...]) -> gguf.Header:
    paths = {file.name: store.blobs.path(file.digest) for file in files}
    found = checkpoint.read(paths) if len(files) > 1 else None
    return found or gguf.read_header(paths[files[0].name])


def _digest(files: tuple[ModelFile, ...]) -> str:
    if len(files) == 1:
        return files[0].digest
    return digest_of_files({file.name: file.digest for file in files})


@contextmanager
def _taken_back(store: ModelStore) -> Iterator[list[str]]:
    """No file of the digests that are listed stays without a card, whatever happens;
    also on Ctrl-C."""
    put: list[str] = []
    try:
        yield put
    except BaseException:
        needed = {file.digest for card in store.list() for file in card.files}
        for digest in put:
            if digest not in needed:
                store.blobs.remove(digest)
        raise


def _task(entry: known.Known | None, header: gguf.Header) -> Task:
    if entry is not None:
        return entry.task
    return Task.EMBEDDINGS if header.is_embedding else Task.CHAT


def _name_of(reference: str) -> str:
    """A name from the reference: the package, the file without its ending, or the
    repository."""
    kind, _, rest = reference.partition(":")
    text = rest.split("==")[0] if kind == "pypi" else rest.rstrip("/").rsplit("/", 1)[-1]
    text = re.sub(r"\.(gguf|safetensors)\Z", "", text.lower())
    return re.sub(r"[^a-z0-9._-]+", "-", text).strip("-._")[:100] or "model"
