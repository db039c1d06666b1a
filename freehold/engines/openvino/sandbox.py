"""The Jinja environment of chat templates: what exists in it, and what it may cost.

Jinja's own sandbox closes the way to attributes and bounds `range`, and no more. Here
loops and calls are counted, every operation that makes something larger than what it
was given is checked before it runs, and what is not needed by chat templates is gone.
"""

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from types import BuiltinMethodType
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.runtime import Context, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

_MAX_STEPS = 500_000
_MAX_SECONDS = 5.0
_MAX_BITS = 4096
# One text or list, and all that are made in one rendering, beside what was given.
_MAX_ITEM, _MAX_ALL = 2_000_000, 16_000_000
_WRITTEN = 65_536  # characters that are written before they are charged
_PLAIN = (int, float, Undefined)

_METHODS: Mapping[type, frozenset[str]] = {
    str: frozenset(
        {
            "capitalize", "count", "endswith", "find", "index", "isalnum", "isalpha", "isascii",
            "isdecimal", "isdigit", "islower", "isnumeric", "isspace", "isupper", "join",
            "lower", "lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind",
            "rindex", "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith",
            "strip", "swapcase", "title", "upper",
        }
    ),
    dict: frozenset({"get", "items", "keys", "values"}),
    list: frozenset({"count", "index"}),
    tuple: frozenset({"count", "index"}),
}  # fmt: skip
_FILTERS = frozenset(
    {
        "abs", "capitalize", "count", "d", "default", "dictsort", "first", "float", "int",
        "items", "last", "length", "list", "lower", "map", "max", "min", "reject", "rejectattr",
        "reverse", "round", "select", "selectattr", "sort", "title", "trim", "unique", "upper",
    }
)  # fmt: skip
_GLOBALS = frozenset({"range", "dict", "cycler", "joiner", "namespace"})


class Exhausted(Exception):
    """The template wants more than it may have."""


class Budget:
    def __init__(self, given: int) -> None:
        self._steps = _MAX_STEPS + given
        self._item = _MAX_ITEM + 2 * given
        self._left = _MAX_ALL + 32 * given
        self._until = time.monotonic() + _MAX_SECONDS

    @classmethod
    def of(cls, given: Any) -> "Budget":
        return cls(_measured(given)[0])

    def check(self, value: Any, times: int = 1) -> None:
        """No list may hold others so often that its text would be huge: lists of the same
        list, over and over, cost nothing until they are written out."""
        size, looked_at = _measured(value, self._item // times)
        self._steps -= looked_at // 8
        if size * times > self._item or self._steps < 0:
            raise Exhausted

    def step(self) -> None:
        self._steps -= 1
        if self._steps < 0 or (not self._steps & 127 and time.monotonic() > self._until):
            raise Exhausted

    def make(self, size: int) -> None:
        """Before, or right after, something of this size is made."""
        self._left -= size
        if size > self._item or self._left < 0:
            raise Exhausted


_budget: ContextVar[Budget] = ContextVar("budget")


@contextmanager
def spending(budget: Budget) -> Iterator[None]:
    """All that the sandbox does inside is charged to this budget."""
    token = _budget.set(budget)
    try:
        yield
    finally:
        _budget.reset(token)


class _Generation(Extension):
    """Transformers marks with it what the assistant said; the text goes through."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"+", "-", "*", "**", "/", "//", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[LoopControlExtension, _Generation],
            autoescape=False,
            cache_size=0,
            optimized=False,
            finalize=_text,
        )
        own = {"tojson": _tojson, "replace": _replace, "join": _join, "indent": _indent}
        own |= {"sum": _sum, "string": _text, "safe": _text, "whole": _whole}
        known = {name: self.filters[name] for name in _FILTERS}
        self.filters = {name: _charged(found) for name, found in (known | own).items()}
        self.filters["counted"] = _counted
        self.globals = {n: found for n, found in self.globals.items() if n in _GLOBALS}
        self.globals["raise_exception"] = _raise_exception

    def concat(self, parts: Iterable[str]) -> str:
        """Of what templates, macros and blocks write."""
        budget, texts, size = _budget.get(), [], 0
        for part in parts:
            size += len(part)
            texts.append(part)
            if size >= _WRITTEN:
                budget.make(size)
                size = 0
        budget.make(size)
        return "".join(texts)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        for kind, names in _METHODS.items():
            if isinstance(obj, kind):
                return attr in names
        if isinstance(obj, int | float | complex | bytes):
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """Formats name widths: there is no `format`."""

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        budget = _budget.get()
        budget.step()
        if isinstance(obj, BuiltinMethodType) and isinstance(obj.__self__, str):
            if obj.__name__ == "join":
                (values,) = args
                return _made(_join(values, obj.__self__))
            if obj.__name__ == "replace":
                return _made(_replace(obj.__self__, *args))
        return _made(super().call(context, obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        budget = _budget.get()
        budget.step()
        _check_operation(budget, operator, left, right)
        return super().call_binop(context, operator, left, right)


def _check_operation(budget: Budget, operator: str, left: Any, right: Any) -> None:
    if operator == "%" and _is_sized(left):
        raise TemplateError("formats")
    if operator == "+" and _is_sized(left) and _is_sized(right):
        budget.make(len(left) + len(right))
        budget.check([left, right])
    elif operator == "*" and (_is_sized(left) or _is_sized(right)):
        sized, times = (left, right) if _is_sized(left) else (right, left)
        if not isinstance(times, int):
            raise TypeError
        budget.make(len(sized) * max(times, 0))
        budget.check(sized, max(times, 1))
    elif operator in ("*", "**") and isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length()
        if (bits + right.bit_length() if operator == "*" else bits * abs(right)) > _MAX_BITS:
            raise Exhausted


def _is_sized(value: Any) -> bool:
    return isinstance(value, str | list | tuple)


def _measured(value: Any, most: float = math.inf) -> tuple[int, int]:
    """Characters and elements, all the way down until they are more than `most`, and how
    many elements were looked at. Only what JSON knows can be written out."""
    size = looked_at = 0
    waiting = [value]
    while waiting and size <= most:
        found = waiting.pop()
        kind = type(found)
        size += 1
        looked_at += 1
        if kind is str:
            size += len(found)
        elif kind is list or kind is tuple:
            waiting += found
        elif kind is dict:
            waiting += [*found.keys(), *found.values()]
        elif found is not None and not isinstance(found, _PLAIN):
            raise TemplateError("writes out an object")
    return size, looked_at


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    _budget.get().check(value)
    return str(value)


def _whole(value: Any) -> Any:
    """A list or mapping that the template wrote."""
    _budget.get().check(value)
    return value


def _made(value: Any) -> Any:
    if _is_sized(value):
        _budget.get().make(len(value))
    elif isinstance(value, dict):
        _budget.get().check(value)
    return value


def _charged(filter: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(filter)  # Jinja marks filters that want the environment by an attribute
    def charged(*args: Any, **kwargs: Any) -> Any:
        _budget.get().step()
        return _made(filter(*args, **kwargs))

    return charged


def _counted(values: Iterable[Any]) -> Iterator[Any]:
    budget = _budget.get()
    for value in values:
        budget.step()
        yield value


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As Transformers has it: no escapes for HTML."""
    if isinstance(indent, int) and not 0 <= indent <= 16:
        raise TemplateError("indents too far")
    _budget.get().check(value)
    return json.dumps(
        value,
        ensure_ascii=bool(ensure_ascii),
        indent=indent,
        separators=separators,
        sort_keys=bool(sort_keys),
    )


def _replace(text: Any, old: Any, new: Any, count: int | None = None) -> str:
    whole, before, after = _text(text), _text(old), _text(new)
    found = whole.count(before)
    _budget.get().make(len(whole) + found * len(after))
    return whole.replace(before, after, -1 if count is None else count)


def _join(values: Iterable[Any], d: str = "", attribute: str | int | None = None) -> str:
    if attribute is not None:
        raise TemplateError("joins attributes")
    texts = [_text(value) for value in _counted(values)]
    _budget.get().make(sum(map(len, texts)) + len(d) * len(texts))
    return d.join(texts)


def _indent(text: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    lines = _text(text).splitlines() or [""]
    space = width if isinstance(width, str) else " " * min(max(width, 0), 1000)
    _budget.get().make(len(text) + len(space) * len(lines))
    rest = [space + line if line or blank else line for line in lines[1:]]
    return "\n".join([space + lines[0] if first else lines[0], *rest])


def _sum(values: Iterable[Any], attribute: Any = None, start: Any = 0) -> Any:
    if attribute is not None or not isinstance(start, int | float):
        raise TemplateError("sums no numbers")
    return sum((value for value in _counted(values) if isinstance(value, int | float)), start)


def _raise_exception(message: object = "") -> None:
    raise TemplateError("the template refuses")
