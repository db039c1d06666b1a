"""Checks that read the answer as JSON, all of it: what stands around it, a code fence too,
would stop the program that reads it."""

import json
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from freehold.adapt.evaluate.example import Answer, Example
from freehold.adapt.evaluate.json_path import JsonPath
from freehold.adapt.evaluate.text_checks import short
from freehold.core.errors import Code, UserError


class _Nothing(Enum):
    """What `null` is not."""

    NOTHING = 0


_NOTHING = _Nothing.NOTHING


class NoJson(ValueError):
    """Its text says why."""


def content_of(text: str) -> Any:
    """Raises `NoJson`. `NaN` is none, and a name that is there twice would be read in two ways."""

    def refuse(name: str) -> Any:
        raise NoJson(f"is no JSON: {name}")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            raise NoJson("is JSON with a name twice in one object")
        return made

    try:
        return json.loads(text, parse_constant=refuse, object_pairs_hook=once)
    except NoJson:
        raise
    except (ValueError, RecursionError):
        fenced = text.strip().startswith("```")
        raise NoJson("is no JSON: a code fence is around it" if fenced else "is no JSON") from None


@dataclass(frozen=True, slots=True)
class Conforms:
    """To a JSON schema (2020-12, unless its `$schema` says another), which refers only to
    itself."""

    schema: dict[str, Any]
    _validator: Any = field(compare=False, repr=False)

    @property
    def name(self) -> str:
        return "JSON schema"

    def wrong(self, example: Example, answer: Answer) -> str | None:
        try:
            content = content_of(answer.text)
        except NoJson as why:
            return str(why)
        problem = next(iter(self._validator.iter_errors(content)), None)
        if problem is None:
            return None
        place = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in problem.absolute_path)
        return f"{f'at ${place}' if place else 'as a whole'}: {short(problem.message)}"


def conforms(schema: Any) -> Conforms:
    """Raises `ValueError` with why that is no schema, and `UserError(NOT_INSTALLED)`."""
    try:
        import jsonschema
        from referencing import Registry, exceptions
    except ImportError:
        raise UserError(
            Code.NOT_INSTALLED,
            "Checks by a JSON schema need the extra `eval`: install `freehold[eval]`.",
        ) from None
    if not isinstance(schema, dict):
        raise ValueError("a schema holds fields, such as `type: object`")
    kind = jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
        # An empty registry: a schema of somebody's never makes this machine fetch another.
        made = kind(schema, registry=Registry())
        next(iter(made.iter_errors(None)), None)
    except jsonschema.SchemaError as error:
        raise ValueError(f"is no JSON schema: {short(error.message)}") from None
    except exceptions.Unresolvable as error:
        raise ValueError(f"refers to what it does not hold: {error.ref}") from None
    return Conforms(schema, made)


@dataclass(frozen=True, slots=True)
class AtPath:
    """Something is there; with `equals`, all that is there equals it."""

    path: JsonPath
    equals: Any = _NOTHING

    @property
    def name(self) -> str:
        return f"JSON at {self.path.text}"

    def wrong(self, example: Example, answer: Answer) -> str | None:
        try:
            found = self.path.find(content_of(answer.text))
        except NoJson as why:
            return str(why)
        if not found:
            return f"has nothing at {self.path.text}"
        if self.equals is _NOTHING:
            return None
        other = next((each for each in found if not same(each, self.equals)), _NOTHING)
        if other is _NOTHING:
            return None
        return f"has {short(json.dumps(other))} at {self.path.text}"


def same(one: Any, other: Any) -> bool:
    """As JSON has it: true is not 1, and 1.0 is."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)
