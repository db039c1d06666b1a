"""Reads what is known of hardware, models, prices and measurements: the package's files, and
over them those in `$FREEHOLD_HOME/facts/`, whose rows change those of the same id or key."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from freehold.catalog import facts_rows as rows
from freehold.catalog.facts_file import FactsFile, Row, read_file
from freehold.core.facts import Facts, Score, Source
from freehold.core.ids import digest_of_files

# What each part's lists are of, and the fields that name a row of them.
_LISTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "hardware": {"accelerators": ("id",)},
    "models": {"models": ("id",), "embedding_models": ("id",)},
    "throughput": {"cases": ("id",)},
    "cloud_prices": {
        "prices": ("provider", "instance", "region", "accelerator", "accelerator_count", "term"),
        "egress": ("provider",),
    },
    "api_prices": {
        "models": ("provider", "model"),
        "embeddings": ("provider", "model"),
        "provider_terms": ("provider",),
    },
}
# Of a part as a whole, for whoever reads the file.
_ABOUT = frozenset({"schema", "compiled", "currency", "conventions", "caveats", "warnings"})
_REFERENCE, _QUANTIZATION = "gpt3_reference", "quantization_quality"


def load_facts(home: Path | None = None) -> Facts:
    """Raises `FILE_INVALID`, naming file and line. A user's file is of the part that its
    `schema` or its name says: hardware, models, throughput, cloud_prices or api_prices."""
    packaged, own = _packaged(), sorted((home / "facts").glob("*.yaml")) if home else []
    return _facts(packaged) if not own else _facts(packaged, *(_read(path, False) for path in own))


def facts_digest(home: Path | None = None) -> str:
    """Of the files that `load_facts` reads, so that two decisions can be told to rest on the
    same."""
    folder = Path(str(files("freehold") / "facts"))
    read = {f"packaged/{part}": folder / f"{part}.yaml" for part in _LISTS}
    if home is not None:
        read |= {path.name: path for path in (home / "facts").glob("*.yaml")}
    digests = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in read.items()}
    return digest_of_files(digests)


@dataclass(frozen=True, slots=True)
class Age:
    """Of a part: when it was put together, and its rows that have dates. Days before `today`."""

    part: str
    compiled_days: int
    oldest_row_days: int | None
    newest_row_days: int | None
    rows_without_date: int


def ages(facts: Facts, today: date) -> tuple[Age, ...]:
    by_part: dict[str, list[tuple[Source, ...]]] = {
        "hardware": [each.sources for each in facts.accelerators.values()],
        "models": [each.sources for each in facts.models.values()],
        "throughput": [(each.source,) for each in facts.measured],
        "cloud_prices": [
            *((each.source,) for each in facts.rents),
            *((each.source,) for each in facts.egress),
        ],
        "api_prices": [
            *((each.source,) for each in facts.apis),
            *((each.source,) for each in facts.embeddings),
        ],
    }
    found = []
    for part, compiled in facts.compiled.items():
        told = [[s.at for s in sources if s.at] for sources in by_part.get(part, [])]
        days = [(today - max(dates)).days for dates in told if dates]
        oldest, newest = (max(days), min(days)) if days else (None, None)
        found.append(Age(part, (today - compiled).days, oldest, newest, len(told) - len(days)))
    return tuple(found)


@cache
def _packaged() -> tuple[FactsFile, ...]:
    folder = Path(str(files("freehold") / "facts"))
    return tuple(_read(folder / f"{part}.yaml", True) for part in _LISTS)


def _read(path: Path, is_packaged: bool) -> FactsFile:
    file = read_file(path, is_packaged)
    if file.part not in _LISTS:
        raise file.refused(
            f"it is of {file.part!r}, and facts are of {', '.join(_LISTS)}: name the file so, "
            f"or say `schema: freehold-facts/models/1`",
            "schema",
        )
    known = _ABOUT | set(_LISTS[file.part])
    if file.part == "models":
        known |= {_REFERENCE, _QUANTIZATION}
    for name in file.content:
        if name not in known:
            raise file.refused(
                f"`{name}` is no list of {file.part}; there are {', '.join(_LISTS[file.part])}",
                str(name),
            )
    return file


def _facts(packaged: tuple[FactsFile, ...], *own: FactsFile) -> Facts:
    every = (*packaged, *own)

    def of(part: str, name: str, reader: Callable[[Row], Any]) -> list[Any]:
        return [reader(row) for row in _rows(every, part, name)]

    return Facts(
        compiled=_compiled(packaged),
        accelerators={a.id: a for a in of("hardware", "accelerators", rows.accelerator)},
        models={m.id: m for m in of("models", "models", rows.model)},
        gpt3=_reference(every),
        quantization=tuple(
            rows.quantization_loss(row, source) for row, source in _quantization(every)
        ),
        measured=tuple(of("throughput", "cases", rows.measured)),
        rents=tuple(of("cloud_prices", "prices", rows.rent)),
        egress=tuple(of("cloud_prices", "egress", rows.egress)),
        apis=tuple(of("api_prices", "models", rows.api)),
        embeddings=tuple(of("api_prices", "embeddings", rows.embedding)),
        terms=tuple(of("api_prices", "provider_terms", rows.terms)),
        embedders={m.id: m for m in of("models", "embedding_models", rows.model)},
    )


def _rows(every: tuple[FactsFile, ...], part: str, name: str) -> Iterator[Row]:
    """A later row of the same key goes over the earlier one, in its place. Packaged rows may
    have a key more than once, as some offers do."""
    found: list[Row] = []
    by_key: dict[tuple[str, ...], int] = {}
    for file in every:
        if file.part != part:
            continue
        for row in Row(file, (), file.content).rows(name):
            key = tuple(str(row.fields.get(each)) for each in _LISTS[part][name])
            at = by_key.get(key)
            if at is not None and not file.is_packaged:
                found[at] = Row(file, row.where, row.fields, under=found[at])
                continue
            by_key[key] = len(found)
            found.append(row)
    return iter(found)


def _compiled(packaged: tuple[FactsFile, ...]) -> dict[str, date]:
    told = {file.part: Row(file, (), file.content).date("compiled") for file in packaged}
    return {part: at for part, at in told.items() if at is not None}


def _reference(every: tuple[FactsFile, ...]) -> tuple[Score, ...]:
    """A user's file replaces it whole."""
    last = next(f for f in reversed(every) if f.part == "models" and _REFERENCE in f.content)
    told = Row(last, (), last.content).mapping(_REFERENCE)
    scores = [rows.gpt3_score(row) for row in told.rows("scores")] if told else []
    return tuple(score for score in scores if score is not None)


def _quantization(every: tuple[FactsFile, ...]) -> Iterator[tuple[Row, Source]]:
    for file in every:
        told = Row(file, (), file.content).mapping(_QUANTIZATION)
        if file.part == "models" and told is not None:
            source = Source(told.text_or_none("source") or str(file.path))
            for row in told.rows("rows"):
                yield row, source
