"""Reads `suite.yaml`. What a field cannot be ends in a sentence that names field and line."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from freehold.adapt.evaluate import json_path
from freehold.adapt.evaluate.call_check import Called
from freehold.adapt.evaluate.canary import LEAST as LEAST_OF_SECRET
from freehold.adapt.evaluate.canary import Canary, is_long_enough
from freehold.adapt.evaluate.classes import classes_of
from freehold.adapt.evaluate.data_file import checked_messages, example, read_data
from freehold.adapt.evaluate.example import Check, Example
from freehold.adapt.evaluate.gate import Needs, Rules
from freehold.adapt.evaluate.json_checks import AtPath, conforms
from freehold.adapt.evaluate.judge import CRITERION
from freehold.adapt.evaluate.normal import normal
from freehold.adapt.evaluate.suite import LEAST, Sampling, Suite, measure_names, room
from freehold.adapt.evaluate.text_checks import Contains, Exact, Matches, Number
from freehold.config import lined
from freehold.config.lined import Lined
from freehold.core.errors import UserError

_Text = Annotated[str, Field(min_length=1, max_length=100_000)]
_MOST = 100_000


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ExactSection(_Section):
    text: _Text | None = None
    as_written: bool = False


class NumberSection(_Section):
    value: float | None = None
    absolute: Annotated[float, Field(ge=0)] = 0.0
    relative: Annotated[float, Field(ge=0)] = 0.0


class PathSection(_Section):
    path: _Text
    equals: Any = None


class ToolSection(_Section):
    name: _Text | None = None
    arguments: dict[str, Any] | None = None


class CheckSection(_Section):
    """One of them."""

    exact: bool | ExactSection | None = None
    contains: _Text | None = None
    not_contains: _Text | None = None
    regex: _Text | None = None
    not_regex: _Text | None = None
    number: bool | NumberSection | None = None
    json_schema: dict[str, Any] | None = None
    json_path: _Text | PathSection | None = None
    tool: _Text | bool | ToolSection | None = None

    @model_validator(mode="after")
    def _is_one(self) -> "CheckSection":
        if len(self.model_fields_set) != 1:
            raise ValueError("a check is one field: put `- ` in front of each")
        return self

    @property
    def kind(self) -> str:
        return next(iter(self.model_fields_set))


class ExampleSection(_Section):
    id: _Text | None = None
    ask: _Text | None = None
    system: _Text | None = None
    messages: list[dict[str, Any]] | None = None
    expected: _Text | None = None
    tools: list[dict[str, Any]] = []
    checks: list[CheckSection] = []
    must_pass: bool = False

    @model_validator(mode="after")
    def _asks(self) -> "ExampleSection":
        if (self.ask is None) is (self.messages is None):
            raise ValueError("an example says `ask` or `messages`, one of them")
        if self.messages is not None and self.system is not None:
            raise ValueError("`system` goes with `ask`: put it into `messages`")
        return self


class RequestSection(_Section):
    temperature: Annotated[float, Field(ge=0, le=2)] | None = Sampling().temperature
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = Sampling().seed
    max_tokens: Annotated[int, Field(ge=1, le=100_000)] | None = None


class CanarySection(_Section):
    before: _Text
    secret: _Text


_Share = Annotated[float, Field(ge=0, le=1)]
_Few = Annotated[int, Field(ge=0, le=1000)]


class NeedsSection(_Section):
    at_least: _Share | None = None
    surely: bool = False
    not_worse_by: _Share | None = None

    @model_validator(mode="after")
    def _says(self) -> "NeedsSection":
        if self.at_least is None and (self.surely or self.not_worse_by is None):
            raise ValueError("say `at_least`, which may hold `surely`, or `not_worse_by`")
        return self

    def needs(self) -> Needs:
        return Needs(self.at_least, self.surely, self.not_worse_by)


class JudgeNeedsSection(_Section):
    at_least: _Share
    surely: bool = False


class AtMostSection(_Section):
    at_most: _Few


class GateSection(_Section):
    overall: NeedsSection | None = None
    checks: Annotated[dict[str, NeedsSection], Field(max_length=1000)] = {}
    refused: NeedsSection | None = None
    answered: NeedsSection | None = None
    judge: JudgeNeedsSection | None = None
    canaries: AtMostSection | None = None
    extracted: AtMostSection | None = None
    triggers: AtMostSection | None = None

    def rules(self) -> Rules:
        usual = Rules()
        judge = self.judge
        return Rules(
            overall=self.overall.needs() if self.overall else usual.overall,
            checks={name: each.needs() for name, each in self.checks.items()},
            refused=self.refused.needs() if self.refused else usual.refused,
            answered=self.answered.needs() if self.answered else usual.answered,
            judge=Needs(judge.at_least, judge.surely) if judge else usual.judge,
            canaries=self.canaries.at_most if self.canaries else usual.canaries,
            extracted=self.extracted.at_most if self.extracted else usual.extracted,
            triggers=self.triggers.at_most if self.triggers else usual.triggers,
        )


class SuiteFile(_Section):
    name: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    data: _Text | None = None
    most: Annotated[int, Field(ge=1, le=_MOST)] = 1000
    least: Annotated[int, Field(ge=1, le=_MOST)] = LEAST
    classes: list[_Text] | bool | None = None
    request: RequestSection = RequestSection()
    checks: list[CheckSection] = []
    examples: Annotated[list[ExampleSection], Field(max_length=_MOST)] = []
    must_refuse: list[_Text] = []
    must_answer: list[_Text] = []
    canaries: list[CanarySection] = []
    triggers: Annotated[list[_Text], Field(max_length=20)] = []
    judge_by: _Text | None = None
    gate: GateSection = GateSection()


def read_suite(path: Path) -> Suite:
    """Raises `UserError(FILE_INVALID)`, one sentence with field and line."""
    file = lined.read(path)
    return _Reader(file, _validated(file)).suite()


def whole_suite(path: Path) -> dict[str, Any]:
    """A suite file as plain values that need no file: `suite_of_content` takes them elsewhere.
    Raises as `read_suite`, which is called first for what it says of lines."""
    file = lined.read(path)
    made = _validated(file)
    reader = _Reader(file, made)
    reader.suite()
    told = made.model_dump(mode="json", exclude_unset=True, exclude={"data", "most"})
    own = [
        {"id": _name_of(at), **each} for at, each in enumerate(told.get("examples", []))
    ]  # which would be counted on from those of the data
    written = [*map(_written, reader.from_data()), *own]
    return {**told, "name": made.name or path.stem, "examples": written}


def whole_data(path: Path, name: str, most: int) -> dict[str, Any]:
    """The same of data alone."""
    return {"name": name, "examples": [_written(each) for each in read_data(path, most)]}


def suite_of_content(content: Mapping[str, Any]) -> Suite:
    """What somebody sent: nothing in it names a file. Raises `UserError(FILE_INVALID)`, which
    names the field."""
    sent = Lined(Path("suite"), dict(content), {})
    if "data" in content:
        raise sent.refused("is a file beside the suite: send its examples instead.", "data")
    return _Reader(sent, _validated(sent)).suite()


def _validated(file: Lined) -> SuiteFile:
    try:
        return SuiteFile.model_validate(file.content)
    except ValidationError as error:
        raise _problem(error, file) from None


def _written(given: Example) -> dict[str, Any]:
    """With the expected answer as the last message, as data has it."""
    answer: dict[str, Any] = {"role": "assistant", "content": given.expected or ""}
    if given.expected_calls:
        answer["tool_calls"] = [
            {"type": "function", "function": {"name": each.name, "arguments": each.arguments}}
            for each in given.expected_calls
        ]
    told = {"id": given.id, "messages": [*map(dict, given.messages), answer]}
    return told | ({"tools": list(given.tools)} if given.tools else {})


def suite_of_data(path: Path, name: str, most: int) -> Suite:
    """Data alone: answers are classes where they look like some, and texts otherwise."""
    return _finished(name, list(read_data(path, most)), None, Suite(name, "", ()))


class _Reader:
    def __init__(self, file: Lined, content: SuiteFile) -> None:
        self._file, self._content = file, content

    def suite(self) -> Suite:
        content = self._content
        shared = tuple(self._checks(content.checks, "checks"))
        found = [*self.from_data(), *self._examples()]
        names = Counter(each.id for each in found)
        for at, each in enumerate(content.examples):
            if each.id is not None and names[each.id] > 1:
                raise self._file.refused("is there twice.", "examples", at, "id")
        found = [each if each.checks else replace(each, checks=shared) for each in found]
        base = Suite(
            content.name or self._file.path.stem,
            "",
            (),
            sampling=Sampling(**content.request.model_dump()),
            least=content.least,
            must_refuse=tuple(content.must_refuse),
            must_answer=tuple(content.must_answer),
            canaries=tuple(self._canaries()),
            triggers=tuple(content.triggers),
            criterion=content.judge_by or CRITERION,
            gate=content.gate.rules(),
        )
        if not (found or base.must_refuse or base.must_answer or base.canaries):
            raise self._file.refused(
                "nothing is asked: name `data`, or write `examples`, `must_refuse` or `canaries`."
            )
        labels = content.classes if isinstance(content.classes, list) else None
        made = _finished(base.name, found, False if content.classes is False else labels, base)
        written = Counter(normal(each) for each in labels or ())
        for at, label in enumerate(labels or ()):
            if written[normal(label)] > 1:
                raise self._file.refused("is there twice.", "classes", at)
        if content.classes is True and not made.labels:
            raise self._file.refused(
                "the expected answers are no classes: they are long, or hardly one is there "
                "three times.",
                "classes",
            )
        known = measure_names(made)[1:]
        for name in content.gate.checks:
            if name not in known:
                told = ", ".join(known) or "none beside the first row, which is `overall`"
                raise self._file.refused(
                    f"the report has no such row: it has {told}.", "gate", "checks", name
                )
        return made

    def from_data(self) -> Iterator[Example]:
        if self._content.data is None:
            return
        # As whoever wrote the file sees it, wherever the command is given.
        path = self._file.path.parent / Path(self._content.data).expanduser()
        try:
            yield from read_data(path, self._content.most)
        except UserError as error:
            raise self._file.refused(error.message, "data") from None

    def _examples(self) -> Iterator[Example]:
        for at, given in enumerate(self._content.examples):
            name = given.id or _name_of(at)
            checks = tuple(self._checks(given.checks, "examples", at, "checks"))
            messages = given.messages or _asking(given)
            try:
                asked = checked_messages(messages)
                if given.messages and asked[-1]["role"] == "assistant" and not given.expected:
                    made = example(name, asked[:-1], asked[-1], given.tools)
                else:
                    made = Example(name, tuple(asked), given.expected, (), tuple(given.tools))
            except ValueError as why:
                raise self._file.refused(f"{why}.", "examples", at) from None
            expects = made.expected is not None or made.expected_calls
            if not (checks or self._content.checks or expects):
                raise self._file.refused(
                    "says neither `expected` nor `checks`: nothing tells a right answer.",
                    "examples",
                    at,
                )
            yield replace(made, checks=checks, must_pass=given.must_pass)

    def _checks(self, given: list[CheckSection], *where: str | int) -> Iterator[Check]:
        for at, section in enumerate(given):
            try:
                yield _check(section)
            except (ValueError, re.error) as why:
                raise self._file.refused(f"{why}.", *where, at, section.kind) from None

    def _canaries(self) -> Iterator[Canary]:
        for at, each in enumerate(self._content.canaries):
            if not is_long_enough(each.secret):
                raise self._file.refused(
                    f"has fewer than {LEAST_OF_SECRET} letters and digits: chance meets those.",
                    "canaries",
                    at,
                    "secret",
                )
            yield Canary(each.before, each.secret)


def _name_of(at: int) -> str:
    return f"example {at + 1}"


def _asking(given: ExampleSection) -> list[dict[str, Any]]:
    first = [{"role": "system", "content": given.system}] if given.system else []
    return [*first, {"role": "user", "content": given.ask}]


def _check(section: CheckSection) -> Check:
    """Raises `ValueError` or `re.error` with why it is none."""
    value = getattr(section, section.kind)
    if value is False or value is None:
        raise ValueError("leave the check out instead")
    match section.kind:
        case "exact":
            return Exact() if value is True else Exact(value.as_written, value.text)
        case "number":
            return Number() if value is True else Number(*value.model_dump().values())
        case "contains" | "not_contains":
            return Contains(value, section.kind == "contains")
        case "regex" | "not_regex":
            return Matches(re.compile(value), section.kind == "regex")
        case "json_schema":
            return conforms(value)
        case "json_path":
            if isinstance(value, str):
                return AtPath(json_path.parse(value))
            path = json_path.parse(value.path)
            return (
                AtPath(path, value.equals) if "equals" in value.model_fields_set else AtPath(path)
            )
        case _:
            if isinstance(value, ToolSection):
                return Called(value.name, value.arguments)
            return Called(None if value is True else value)


def _finished(
    name: str, found: list[Example], labels: list[str] | bool | None, base: Suite
) -> Suite:
    """With the check that fits what is expected, where nothing else is said."""
    usual = [replace(each, checks=each.checks or _usual(each)) for each in found]
    given = tuple(labels) if isinstance(labels, list) else ()
    classes = given or (() if labels is False else classes_of([each.expected for each in usual]))
    notes = []
    if classes and not given:
        notes.append(f"The expected answers were taken for {len(classes)} classes.")
    if given:
        known = {normal(label) for label in given}
        other = next((e for e in usual if e.expected and normal(e.expected) not in known), None)
        if other is not None:
            notes.append(f"{other.id} expects what is none of the classes, as others may.")
    sampling = base.sampling
    if sampling.max_tokens is None:
        sampling = replace(sampling, max_tokens=room(usual))
    ready = replace(
        base,
        name=name,
        examples=tuple(usual),
        labels=classes,
        sampling=sampling,
        notes=tuple(notes),
    )
    return ready.named()


def _usual(given: Example) -> tuple[Check, ...]:
    made: list[Check] = []
    if given.expected is not None:
        made.append(Exact())
    if given.expected_calls:
        made.append(Called())
    return tuple(made)


def _problem(error: ValidationError, file: Lined) -> UserError:
    """A field that nobody knows goes first, as others are missing for it; then what is said of
    the innermost, as what holds it could be something else altogether."""
    found = error.errors(include_url=False)
    unknown = next((each for each in found if each["type"] == "extra_forbidden"), None)
    one = unknown or max(found, key=lambda each: len(_place(each["loc"])))
    where = _place(one["loc"])
    if unknown is not None:
        return file.refused("there is no such field.", *where)
    if one["type"] == "missing":
        return file.refused("is missing.", *where)
    what = one["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    what = what.replace("String should have", "must be text with")
    what = what.replace("a valid string", "text (in quotes)")
    what = what.replace("a valid boolean", "`true`, or hold fields")
    if one["type"] == "model_type":
        what = "must hold fields, as `name: value` lines below it"
    return file.refused(f"{what}.", *where)


def _place(loc: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """Pydantic names the kinds that a value could have had, too, which no file has."""
    return tuple(each for each in loc if isinstance(each, int) or _is_field(each))


def _is_field(name: str) -> bool:
    return re.fullmatch("[a-z_]+", name) is not None and name not in {"bool", "str"}
