"""The only reader of settings from files and the environment. What checks them is imported
when there are some to check: most commands ask only for the home."""

import os
from collections.abc import Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freehold.config.home import Home
from freehold.core.errors import Code, UserError

if TYPE_CHECKING:
    from pydantic import ValidationError

    from freehold.config.schema import Settings

_PREFIX = "FREEHOLD_"
_NOT_SETTINGS = {"FREEHOLD_HOME"}


def home(environ: Mapping[str, str] = os.environ) -> Home:
    """The home that `FREEHOLD_HOME` names, else `~/.freehold`."""
    named = environ.get("FREEHOLD_HOME")
    return Home(Path(named).expanduser().absolute() if named else Path.home() / ".freehold")


def settings(
    where: Path,
    environ: Mapping[str, str] = os.environ,
    overrides: Mapping[str, Any] | None = None,
) -> "Settings":
    """Reads `where` (absent: all defaults), then `FREEHOLD_SECTION__NAME` and `FREEHOLD_NAME` of
    those in no section, then `overrides` (dotted names, from the command line; None is skipped).

    Raises `UserError(CONFIG_INVALID)` naming the key and the place of a bad value.
    """
    from pydantic import BaseModel, ValidationError

    from freehold.config.schema import Settings

    raw = _read_yaml(where)
    alone = {
        name
        for name, field in Settings.model_fields.items()
        if not isinstance(field.default, BaseModel)
    }
    for name, value in _environment_values(environ, alone).items():
        _put(raw, name, value, f"environment variable {_PREFIX}{name.replace('.', '__').upper()}")
    for name, value in (overrides or {}).items():
        if value is not None:
            _put(raw, name, value, f"option for {name}")
    try:
        return Settings.model_validate(raw)
    except ValidationError as error:
        raise UserError(Code.CONFIG_INVALID, _first_problem(error, where)) from None


def _read_yaml(where: Path) -> dict[str, Any]:
    import yaml

    try:
        raw = yaml.safe_load(where.read_bytes())
    except FileNotFoundError:
        return {}
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none, `!!int x`
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(
            Code.CONFIG_INVALID, f"{where}{line} is not valid YAML: correct or remove it."
        ) from None
    except OSError as error:
        raise UserError(
            Code.CONFIG_INVALID, f"{where} cannot be read ({error.strerror})."
        ) from None
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise UserError(Code.CONFIG_INVALID, f"{where} must hold settings as `name: value` lines.")
    return raw


def _environment_values(environ: Mapping[str, str], alone: Set[str]) -> dict[str, Any]:
    """`FREEHOLD_SERVER__PORT=9000` as `{"server.port": 9000}`. Names without `__` are of those
    settings that stand `alone`, or belong to others (tests, the Makefile) and are left so."""
    values: dict[str, Any] = {}
    for name, text in environ.items():
        if not name.startswith(_PREFIX) or name in _NOT_SETTINGS:
            continue
        dotted = name.removeprefix(_PREFIX).lower().replace("__", ".")
        if "." in dotted or dotted in alone:
            values[dotted] = _environment_value(name, text)
    return values


def _environment_value(name: str, text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text) if text else None
    except (yaml.YAMLError, ValueError):
        raise UserError(
            Code.CONFIG_INVALID,
            f"The environment variable {name} is not valid YAML: correct it, or put its value "
            "between quotes.",
        ) from None


def _put(raw: dict[str, Any], dotted: str, value: Any, origin: str) -> None:
    *sections, last = dotted.split(".")
    for section in sections:
        inner = raw.setdefault(section, {})
        if not isinstance(inner, dict):
            raise UserError(Code.CONFIG_INVALID, f"The {origin} names no setting.")
        raw = inner
    raw[last] = value


def _first_problem(error: "ValidationError", where: Path) -> str:
    problem = error.errors(include_url=False, include_input=False)[0]
    key = ".".join(str(part) for part in problem["loc"]) or "the settings"
    what = problem["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    what = what.replace("a valid tuple", "a list")
    if problem["type"] == "extra_forbidden":
        return f"{where}: there is no setting {key!r}; see `freehold up --help` and the README."
    return f"{where} (or its environment override): {key}: {what}."
