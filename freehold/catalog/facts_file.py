"""A file of facts: its rows, and where in it a row or a field stands, for who has to mend it."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import yaml

from freehold.core.errors import Code, UserError
from freehold.core.facts import Source

# libyaml reads these files in a tenth of the time; where it is missing, it takes longer.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DATE = re.compile(r"(\d{4})(?:-(\d{1,2}))?(?:-(\d{1,2}))?\Z")
_Noun = TypeVar("_Noun")


@dataclass(frozen=True, slots=True)
class FactsFile:
    path: Path
    content: Mapping[str, Any]
    is_packaged: bool

    @property
    def part(self) -> str:
        """`models` for `freehold-facts/models/1`, else the name of the file."""
        told = re.match(r"freehold-facts/(\w+)/\d+\Z", str(self.content.get("schema", "")))
        return told[1] if told else self.path.stem

    def refused(self, why: str, *where: str | int) -> UserError:
        return UserError(Code.FILE_INVALID, f"{self.path}, line {self._line(where)}: {why}.")

    def _line(self, where: tuple[str | int, ...]) -> int:
        """Of the last part of `where` that is in the file, which is read again for it."""
        node = yaml.compose(self.path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        line = 1
        for step in where:
            found = _inner(node, step)
            if found is None:
                break
            line, node = found
        return line


def read_file(path: Path, is_packaged: bool) -> FactsFile:
    try:
        content = yaml.load(path.read_bytes(), Loader=_Loader)  # noqa: S506 - a safe loader
    except OSError as error:
        raise UserError(
            Code.FILE_INVALID, f"{path} cannot be read ({error.strerror}): mend or remove it."
        ) from None
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark is not None else 1
        problem = getattr(error, "problem", None) or "it cannot be read"
        raise UserError(
            Code.FILE_INVALID, f"{path}, line {line}: this is not YAML ({problem})."
        ) from None
    file = FactsFile(path, content if isinstance(content, dict) else {}, is_packaged)
    if not isinstance(content, dict):
        raise file.refused("a file of facts has names and what they mean, as in `models: [...]`")
    return file


def _inner(node: Any, step: str | int) -> tuple[int, Any] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(step):
                return key.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step].start_mark.line + 1, node.value[step]
    return None


@dataclass(slots=True)
class Row:
    """One row, as it was read or as later files changed it. Each field is taken once, by what
    it must be; `ended` refuses what nobody took."""

    file: FactsFile
    where: tuple[str | int, ...]
    fields: Mapping[str, Any]
    under: "Row | None" = None  # the row that this one changes
    taken: set[str] = field(default_factory=set)

    def refused(self, why: str, name: str = "") -> UserError:
        if self.under is not None and name and name not in self.fields:
            return self.under.refused(why, name)
        return self.file.refused(why, *self.where, *([name] if name else []))

    def _take(self, name: str) -> Any:
        self.taken.add(name)
        if name in self.fields:
            return self.fields[name]
        return self.under._take(name) if self.under is not None else None

    def text(self, name: str) -> str:
        found = self.text_or_none(name)
        if found is None:
            raise self.refused(f"`{name}` is missing", name)
        return found

    def text_or_none(self, name: str) -> str | None:
        found = self._take(name)
        if found is None or (isinstance(found, str) and found.strip()):
            return found
        if isinstance(found, date):
            return found.isoformat()
        raise self.refused(f"`{name}` must be text and is {found!r}", name)

    def words(self, name: str) -> str | None:
        """Of what is a number in one row and told in words in another."""
        found = self._take(name)
        if found is None or (isinstance(found, str | int | float) and not isinstance(found, bool)):
            return None if found is None else str(found)
        raise self.refused(f"`{name}` must be a number or words and is {found!r}", name)

    def number(self, name: str) -> float:
        found = self.number_or_none(name)
        if found is None:
            raise self.refused(f"`{name}` is missing", name)
        return found

    def number_or_none(self, name: str) -> float | None:
        found = self._take(name)
        if found is None:
            return None
        is_number = isinstance(found, int | float) and not isinstance(found, bool)
        if not is_number or not 0 <= found < 1e15:
            raise self.refused(f"`{name}` must be a number, not below 0, and is {found!r}", name)
        return float(found)

    def count(self, name: str) -> int | None:
        found = self.number_or_none(name)
        if found is not None and not found.is_integer():
            raise self.refused(f"`{name}` must be a whole number and is {found!r}", name)
        return None if found is None else int(found)

    def flag(self, name: str) -> bool | None:
        found = self._take(name)
        if found is None or isinstance(found, bool):
            return found
        raise self.refused(f"`{name}` must be true or false and is {found!r}", name)

    def date(self, name: str) -> date | None:
        """Of a month or year, its first day."""
        found = self._take(name)
        if found is None or type(found) is date:
            return found
        parts = _DATE.match(str(found))
        try:
            if parts:
                return date(int(parts[1]), int(parts[2] or 1), int(parts[3] or 1))
        except ValueError:
            pass
        raise self.refused(f"`{name}` must be a date as 2026-03-01 and is {found!r}", name)

    def texts(self, name: str) -> tuple[str, ...]:
        found = self._take(name) or []
        if isinstance(found, list) and all(isinstance(each, str) for each in found):
            return tuple(found)
        raise self.refused(f"`{name}` must be a list of texts", name)

    def rows(self, name: str) -> Iterator["Row"]:
        found = self._take(name) or []
        if not isinstance(found, list):
            raise self.refused(f"`{name}` must be a list", name)
        holder = self
        while name not in holder.fields and holder.under is not None:
            holder = holder.under
        for index, each in enumerate(found):
            if not isinstance(each, dict):
                raise self.refused(f"`{name}` must be a list of rows", name)
            yield Row(holder.file, (*holder.where, name, index), each)

    def mapping(self, name: str) -> "Row | None":
        found = self._take(name)
        if found is None:
            return None
        if not isinstance(found, dict):
            raise self.refused(f"`{name}` must hold names and values", name)
        holder = self
        while name not in holder.fields and holder.under is not None:
            holder = holder.under
        return Row(holder.file, (*holder.where, name), found)

    def sources(self, name: str = "sources") -> tuple[Source, ...]:
        """A list of URLs, or of rows with `url`, `date` and `what`; one of the user's file
        itself where it says none."""
        found = self._take(name) or []
        if not isinstance(found, list):
            raise self.refused(f"`{name}` must be a list", name)
        if all(isinstance(each, str) for each in found):
            told = [Source(each) for each in found]
        else:
            told = [_source(each) for each in self.rows(name)]
        return tuple(told) or self.own()

    def own(self) -> tuple[Source, ...]:
        return () if self.file.is_packaged else (Source(str(self.file.path)),)

    def skip(self, *names: str) -> None:
        """What is there for readers of the file."""
        self.taken.update(names)

    def ended(self, noun: _Noun) -> _Noun:
        for name in self.fields:
            if name not in self.taken:
                known = ", ".join(sorted(self.taken))
                raise self.refused(f"`{name}` is no field of it; there are {known}", str(name))
        if self.under is not None:
            self.under.taken |= self.taken
            self.under.ended(noun)
        return noun


def _source(row: Row) -> Source:
    found = Source(row.text("url"), row.date("date"), row.text_or_none("what"))
    return row.ended(found)
