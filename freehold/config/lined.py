"""YAML that people wrote, read strictly, with the line of each field for who has to mend it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from freehold.core.errors import Code, UserError

_MOST_BYTES = 1024 * 1024
_DEEPEST = 12
# Other spellings of YAML 1.1 surprise: 0777 is 511, 1:30 is ninety, and 0x1f is 31.
_DECIMAL = re.compile(r"[-+]?(?:0|[1-9][0-9_]{0,39})")

Place = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Lined:
    """`content` as plain values, and the line of each of its places."""

    path: Path
    content: dict[str, Any]
    lines: dict[Place, int]

    def refused(self, why: str, *where: str | int) -> UserError:
        """For the field there, or the nearest around it that the file has."""
        place = where
        while place and place not in self.lines:
            place = place[:-1]
        field = ".".join(str(each) for each in where)
        told = f"{field}: {why}" if field else why
        # What was sent rather than read has no lines.
        line = f", line {self.lines.get(place, 1)}" if self.lines else ""
        return UserError(Code.FILE_INVALID, f"{self.path}{line}: {told}", param=field)


def read(path: Path) -> Lined:
    """Raises `UserError(FILE_INVALID)` for what is no mapping, has a field twice, refers to
    itself, or is larger than anybody writes."""
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UserError(
            Code.FILE_INVALID, f"{path} cannot be read ({error.strerror}): name a file that can."
        ) from None
    if len(text) > _MOST_BYTES:
        raise UserError(Code.FILE_INVALID, f"{path} is larger than a MiB: nobody wrote that.")
    return parsed(path, text)


def parsed(path: Path, text: bytes | str) -> Lined:
    made = Lined(path, {}, {})
    try:
        _check_shape(made, text)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        content = _value(made, root, ()) if root is not None else {}
    except (yaml.reader.ReaderError, UnicodeDecodeError):
        raise UserError(
            Code.FILE_INVALID,
            f"{path}: this is no text in UTF-8 that can be read: name a file that is YAML.",
        ) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or "a value cannot be read"
        raise UserError(
            Code.FILE_INVALID, f"{path}{line}: this is not YAML ({problem}): correct it."
        ) from None
    if not isinstance(content, dict):
        raise made.refused("write fields as `name: value` lines.")
    made.content.update(content)
    made.lines.setdefault((), 1)  # also of an empty file
    return made


def _check_shape(made: Lined, text: bytes | str) -> None:
    """Before anything is built of it."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise _at(made, _line(event), "write the value again instead of `*` and `&`.")
        if getattr(event, "tag", None):
            raise _at(made, _line(event), "write the value without a tag, which begins with `!`.")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise _at(made, _line(event), "this is nested deeper than any field is.")


def _line(event: yaml.Event) -> int:
    return event.start_mark.line if event.start_mark else 0


def _at(made: Lined, line: int, why: str) -> UserError:
    return UserError(Code.FILE_INVALID, f"{made.path}, line {line + 1}: {why}")


def _value(made: Lined, node: yaml.Node, where: Place) -> Any:
    made.lines.setdefault(where, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        return dict(_fields(made, node, where))
    if isinstance(node, yaml.SequenceNode):
        return [_value(made, each, (*where, i)) for i, each in enumerate(node.value)]
    if node.tag == "tag:yaml.org,2002:int" and not _DECIMAL.fullmatch(node.value):
        return node.value
    if node.tag == "tag:yaml.org,2002:float" and ":" in node.value:
        return node.value
    maker = yaml.SafeLoader("")
    try:
        return maker.construct_object(node)
    except ValueError:  # a date that is none
        raise made.refused("its value cannot be read: put it in quotes.", *where) from None
    finally:
        maker.dispose()


def _fields(made: Lined, node: yaml.MappingNode, where: Place) -> Iterator[tuple[str, Any]]:
    seen = set()
    for key, inner in node.value:
        name = str(key.value) if isinstance(key, yaml.ScalarNode) else ""
        line = key.start_mark.line
        if not name:
            raise _at(made, line, "a field's name must be a word.")
        if name in seen:
            raise _at(made, line, f"{'.'.join(map(str, (*where, name)))} is there twice.")
        seen.add(name)
        made.lines[*where, name] = line + 1
        yield name, _value(made, inner, (*where, name))
