"""Brings a model in: fetch, examine, ask for the licence, convert, keep.

Everything happens in a quarantine folder first; the store changes in one step at
the end, so that a pull which fails or is killed leaves nothing half done.
"""

import hashlib
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from freehold.catalog import admit, gguf, known, licences, sources
from freehold.catalog.blobs import digest_of
from freehold.catalog.sources import Progress
from freehold.catalog.store import ModelStore
from freehold.core.errors import Code, UserError
from freehold.core.model import Conversion, Licence, ModelCard, ModelFile, Task

ChooseFormat = Callable[[Path, gguf.Header, Progress], tuple[Path, Conversion | None]]


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
    """The card of the stored model. Raises `UserError`; then the store is unchanged."""
    entry = known.find(reference)
    parent = home / "cache"
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="quarantine-", dir=parent) as folder:
        quarantine = Path(folder) / "fetched"
        quarantine.mkdir()
        source = _fetch(entry, reference, quarantine, progress)
        files = admit.check(quarantine)
        main = next((path for path in files if path.suffix == ".gguf"), None)
        if main is None:
            raise UserError(
                Code.FILE_REFUSED,
                "This source holds safetensors only, which no engine here serves yet: "
                "pull a GGUF of the same model.",
            )
        header = gguf.read_header(main)
        said = [entry.licence if entry else "", header.licence or ""]
        title = name or (entry.name if entry else _name_of(reference, main))
        licence = licences.gate(title, licences.agreed(said), accept_licence)
        conversion = None
        served = main
        if choose_format is not None and _task(entry, header) is Task.CHAT:
            served, conversion = choose_format(main, header, progress)
        return _keep(store, title, source, served, licence, conversion, entry)


def _fetch(entry: known.Known | None, reference: str, into: Path, progress: Progress) -> str:
    """From the first source that can be reached; returns which it was."""
    if entry is None:
        sources.fetch(reference, into, progress)
        return reference
    for index, source in enumerate(entry.sources):
        try:
            sources.fetch(source.reference, into, progress)
        except UserError as error:
            is_last = index == len(entry.sources) - 1
            if error.code is not Code.SOURCE_UNREACHABLE or is_last:
                raise
            progress(f"{error.message} Trying {entry.sources[index + 1].reference}", 0, 0)
            shutil.rmtree(into)
            into.mkdir()
            continue
        _check_pinned(source, into)
        return source.reference
    raise UserError(Code.SOURCE_NOT_FOUND, f"{entry.name} has no source.")


def _check_pinned(source: known.KnownSource, folder: Path) -> None:
    if source.digest is None:
        return
    found = [digest_of(path) for path in folder.iterdir() if path.suffix == ".gguf"]
    if found != [source.digest]:
        raise UserError(
            Code.DIGEST_MISMATCH,
            f"{source.reference} gave another file than the catalog knows "
            f"({', '.join(found) or 'none'}): it was not stored.",
        )


def _keep(
    store: ModelStore,
    name: str,
    source: str,
    served: Path,
    licence: Licence,
    conversion: Conversion | None,
    entry: known.Known | None,
) -> ModelCard:
    header = gguf.read_header(served)
    digest = store.blobs.put(served)
    template = header.chat_template
    card = ModelCard(
        name=name,
        digest=digest,
        task=_task(entry, header),
        format="gguf",
        architecture=header.architecture,
        parameters=header.parameters,
        quantization=header.quantization,
        context_length=header.context_length,
        embedding_length=header.embedding_length,
        licence=licence,
        source=source,
        files=(ModelFile(served.name, digest, served.stat().st_size),),
        added_at_us=time.time_ns() // 1000,
        smoke=entry.smoke if entry else False,
        chat_template_digest=(
            f"sha256:{hashlib.sha256(template.encode()).hexdigest()}" if template else None
        ),
        template_reads_tools=bool(template and "tools" in template),
        conversion=conversion,
    )
    store.add(card)
    return card


def _task(entry: known.Known | None, header: gguf.Header) -> Task:
    if entry is not None:
        return entry.task
    return Task.EMBEDDINGS if header.is_embedding else Task.CHAT


def _name_of(reference: str, main: Path) -> str:
    text = main.stem if not reference.startswith("pypi:") else reference[5:].split("=")[0]
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:100] or "model"
