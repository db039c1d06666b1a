"""Reads `workload.yaml`. What a field cannot be by itself, and what fields cannot be together,
ends in a sentence that names field and line."""

import json
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from freehold.config import lined
from freehold.config.lined import Lined
from freehold.config.workload_conflicts import conflicts
from freehold.config.workload_file import WorkloadFile
from freehold.core.errors import UserError
from freehold.core.plan import Workload


def read_workload(path: Path) -> Workload:
    """Raises `UserError(FILE_INVALID)`, one sentence with field and line."""
    return _checked(lined.read(path))


def with_line(error: UserError, path: Path) -> UserError:
    """With where its field is in the file, if that has it: of what only who plans can refuse."""
    place = tuple((error.param or "").split(".", 1))
    file = lined.read(path)
    if place not in file.lines:
        return error
    return UserError(error.code, file.refused(error.message, *place).message, param=error.param)


def parse_workload(text: str | bytes, path: Path = Path("workload.yaml")) -> Workload:
    return _checked(lined.parsed(path, text))


def workload_from(content: Mapping[str, Any], name: str) -> Workload:
    """What a file of that name would hold."""
    text = json.dumps(content, ensure_ascii=False)  # which YAML reads
    return parse_workload(text, Path(f"{name}.yaml"))


def _checked(file: Lined) -> Workload:
    try:
        made = WorkloadFile.model_validate(file.content)
    except ValidationError as error:
        raise _problem(error, file) from None
    for field, why in conflicts(made, file):
        raise file.refused(why, *field.split("."))
    return made.workload(file.path.stem)


def _problem(error: ValidationError, file: Lined) -> UserError:
    """The first; a field that nobody knows goes first, as others are missing for it."""
    found = error.errors(include_url=False, include_input=True)
    one = next((each for each in found if each["type"] == "extra_forbidden"), found[0])
    where = tuple(one["loc"])
    if one["type"] == "extra_forbidden":
        known = _fields_at(where[:-1])
        near = get_close_matches(str(where[-1]), known, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}."
        return file.refused(f"there is no such field; {hint}", *where)
    if one["type"] == "missing":
        return file.refused("is missing: a workload needs it.", *where)
    what = one["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    what = what.replace("String should have", "must be text with")
    what = what.replace("a valid tuple", "a list").replace("a valid string", "text (in quotes)")
    if one["type"] == "model_type":
        what = "must hold fields, as `name: value` lines below it"
    return file.refused(f"{what}.", *where)


def _fields_at(where: tuple[Any, ...]) -> list[str]:
    model: Any = WorkloadFile
    for step in where:
        annotation = model.model_fields[step].annotation
        options = getattr(annotation, "__args__", (annotation,))
        model = next(each for each in options if isinstance(each, type) and each is not type(None))
    return list(model.model_fields)
