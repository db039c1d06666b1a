"""A file of a person's becomes a folder with what is trained on, what is held out, and a
report. The file is read once; of what it holds only `Index` stays in memory."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from freehold.adapt.dataset import labels, lengths, source, triggers
from freehold.adapt.dataset.columns import Columns
from freehold.adapt.dataset.example import Example, Malformed, dropped, read, text_of, texts, words
from freehold.adapt.dataset.findings import Kind, Severity, scan
from freehold.adapt.dataset.index import Index
from freehold.adapt.dataset.lengths import Ruler
from freehold.adapt.dataset.source import Format, Row, refused
from freehold.adapt.dataset.split import Split, split
from freehold.catalog.blobs import disk_error
from freehold.core.dataset import HELD_OUT, REPORT, TRAIN, DatasetKind
from freehold.core.errors import Code, UserError
from freehold.core.words import counted

WORDS = Ruler("words", lambda text: len(words(text)))
_ALL = "all.jsonl"
_GB = 1_000_000_000
_SHOWN = 20
_GROUPS_SHOWN = 3
_KINDS = {Format.CHAT: DatasetKind.CHAT, Format.PREFERENCE: DatasetKind.PREFERENCE}


@dataclass(frozen=True, slots=True)
class Wanted:
    format: Format = Format.AUTO
    columns: Columns = field(default_factory=Columns)
    held_out: float = 0.1
    seed: int = 0
    redact: bool = False
    max_gb: float = 2
    max_examples: int = 500_000
    ruler: Ruler = WORDS


def prepare(path: Path, folder: Path, wanted: Wanted) -> dict[str, Any]:
    """Writes the dataset into `folder`, which is there and empty, and returns the report.
    Raises `UserError` for what is no dataset, with the line it is about."""
    if not 0 <= wanted.held_out <= 0.5:
        raise UserError(
            Code.INVALID_VALUE, "What is held out must be from 0 to 0.5 of all examples."
        )
    try:
        with _private(folder / _ALL) as file:
            kind, index = _read(path, file, wanted)
        report = _examined(folder, kind, index, wanted)
        (folder / _ALL).unlink()
        with _private(folder / REPORT) as file:
            file.write(json.dumps(report, ensure_ascii=False, indent=1).encode() + b"\n")
    except OSError as error:
        raise disk_error(error, folder) from None
    return report


def _read(path: Path, file: BinaryIO, wanted: Wanted) -> tuple[DatasetKind, Index]:
    index, written = Index(), 0
    kind = _KINDS.get(wanted.format)
    for row, given, example in _examples(path, kind, wanted):
        found, example = _scanned(example, redact=wanted.redact)
        line = example.line
        is_new = index.add(row.number, example, line, _length(example, wanted.ruler))
        if not is_new:
            continue
        kind = example.kind
        index.findings.add(row.number, found)
        index.dropped.update(set(dropped(given)))
        written += file.write(line + b"\n")
        if len(index.numbers) > wanted.max_examples or written > wanted.max_gb * _GB:
            raise UserError(
                Code.REQUEST_TOO_LARGE,
                f"{row.where} is beyond what `data.max_examples` ({wanted.max_examples}) and "
                f"`data.max_gb` ({wanted.max_gb:g}) allow: take a part, or raise that setting.",
            )
    if kind is None or len(index.numbers) < 2:
        raise refused(
            f"{path.name} holds {len(index.numbers) or 'no'} example"
            f"{' but for copies of it' if index.repeated else ''}: at least two different ones "
            "are needed, one to train on and one to hold out, and some hundreds to learn from"
        )
    return kind, index


def _examples(
    path: Path, kind: DatasetKind | None, wanted: Wanted
) -> Iterator[tuple[Row, dict[str, Any], Example]]:
    is_table = source.is_table(path, wanted.format)
    for row in source.rows(path, wanted.format, wanted.max_gb):
        given = row.value
        if is_table:
            given = wanted.columns.example(given)
        try:
            example = read(given, kind)
        except Malformed as error:
            raise refused(f"{row.where} {error}") from None
        kind = example.kind
        yield row, given, example


def _scanned(example: Example, *, redact: bool) -> tuple[list[Kind], Example]:
    found: list[Kind] = []
    for text in texts(example.plain):
        found += scan(text)[0]
    if not redact or not found:
        return found, example
    parts = (_redacted(each) for each in (example.prompt, example.answers, example.tools))
    prompt, answers, tools = parts
    return found, replace(example, prompt=prompt, answers=answers, tools=tools)


def _redacted(value: Any) -> Any:
    if isinstance(value, str):
        return scan(value)[1]
    if isinstance(value, Mapping):
        return {key: _redacted(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_redacted(each) for each in value)
    return value


def _length(example: Example, ruler: Ruler) -> int:
    """Of a pair, with the longer answer."""
    return max(
        ruler.measure("\n".join(text_of(each) for each in (*example.prompt, *answer)))
        for answer in example.answers
    )


def _examined(folder: Path, kind: DatasetKind, index: Index, wanted: Wanted) -> dict[str, Any]:
    same = index.joined()
    groups = [same.of(each) for each in range(len(index.numbers))]
    found = index.labelled() if kind is DatasetKind.CHAT else None
    told = labels.examine(found, same) if found else None
    index.join_conversations(same)
    parts = split(same, index.digests, found, wanted.held_out, wanted.seed)
    train, held_out = _written(folder, parts)
    planted = _planted(folder, len(index.numbers))
    report = {
        "kind": kind.value,
        "read": len(index.numbers) + index.repeated,
        "train": train,
        "held_out": held_out,
        "seed": wanted.seed,
        "repeated": index.repeated,
        "nearly_the_same": len(groups) - len(set(groups)),
        "lengths": lengths.report(wanted.ruler, index.lengths),
        "languages": dict(index.languages.most_common()),
        "labels": told.plain(index.numbers) if told else None,
        "findings": index.findings.plain,
        "redacted": wanted.redact,
        "triggers": [each.plain(index.numbers) for each in planted],
        "fields_left_out": dict(index.dropped),
        "notes": list(_notes(index, told, parts, wanted)),
    }
    return {**report, "needs_acceptance": list(_warnings(report))}


def _warnings(report: Mapping[str, Any]) -> Iterator[str]:
    """What keeps the dataset out until somebody says why it may come in."""
    for each in report["findings"]:
        if each["severity"] == Severity.SECRET and not report["redacted"]:
            yield f"{each['type']} × {each['count']} (example {each['examples'][0]})"
    for each in report["triggers"]:
        yield (
            f"the phrase “{each['phrase']}”, which decides the answer of {each['count']} examples "
            f"(such as {each['examples'][0]}) against what else they say"
        )


def _notes(index: Index, told: labels.Labels | None, parts: Split, wanted: Wanted) -> Iterator[str]:
    count, ruler = len(index.numbers), wanted.ruler
    if count < 50:
        yield f"{count} examples are few: some hundreds are what training learns from."
    yield from parts.notes
    if index.unlearned:
        shown = f"{index.unlearned:,} of {count:,}"
        yield f"Without an answer to be learned (all have weight 0): {shown}."
    if told is not None and told.alone:
        names = ", ".join(told.alone[:_SHOWN])
        yield f"There is one example only, so that none could be held out, of: {names}."
    if told is not None and told.contradictions:
        groups = told.plain(index.numbers)["contradicting_examples"]
        shown = "; ".join(", ".join(map(str, each)) for each in groups[:_GROUPS_SHOWN])
        more = "; …" if len(told.contradictions) > _GROUPS_SHOWN else ""
        yield (
            f"{counted(len(told.contradictions), 'question')} with several labels: correct those "
            f"that are wrong (examples {shown}{more})."
        )
    longer = sum(each > ruler.limit for each in index.lengths) if ruler.limit else 0
    if longer:
        yield (
            f"Longer than the {ruler.limit} tokens of the base's context, and left out by "
            f"training: {counted(longer, 'example')}."
        )


def _written(folder: Path, parts: Split) -> tuple[int, int]:
    counts = [0, 0]
    with (
        (folder / _ALL).open("rb") as lines,
        _private(folder / TRAIN) as train,
        _private(folder / HELD_OUT) as held_out,
    ):
        for each, line in enumerate(lines):
            is_held = each in parts.held_out
            (held_out if is_held else train).write(line)
            counts[is_held] += 1
    return counts[0], counts[1]


def _planted(folder: Path, count: int) -> list[triggers.Trigger]:
    """In all of them, or in as many as are looked at, spread evenly."""
    step = max(1, -(-count // triggers.MAX_EXAMPLES))
    places, questions, answers = [], [], []
    with (folder / _ALL).open("rb") as lines:
        for each, line in enumerate(lines):
            if each % step == 0:
                example = read(json.loads(line))
                places.append(each)
                questions.append(triggers.looked_at(example.question))
                answers.append(triggers.looked_at(example.answer))
    found = triggers.find(questions, answers)
    return [
        replace(
            each,
            phrase=scan(each.phrase)[1],
            answer=scan(each.answer)[1],
            examples=tuple(places[place] for place in each.examples),
        )
        for each in found
    ]


def _private(path: Path) -> BinaryIO:
    path.touch(mode=0o600, exist_ok=False)
    return path.open("wb")
