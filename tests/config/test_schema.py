"""The shape of the settings: documented to the last name, closed, checked at the door."""

import re
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError

from freehold.config.schema import DatabaseSettings, Settings, UpstreamModel, UpstreamSettings

_DOCUMENT = Path(__file__).parents[2] / "docs" / "settings.md"
_ROW = re.compile(r"^\| (?P<names>`.+?) \| (?P<defaults>[^|]*) \| (?P<meaning>.*) \|$", re.M)
# Defaults that depend on the machine or the catalogue are told in words.
_IN_WORDS = {
    "models": "the default model",
    "server.allowed_hosts": "loopback names",
    "server.max_body_bytes": "8 MiB",
    "server.max_bodies_bytes": "256 MiB",
    "engines.llama_cpp.threads": "all usable cores",
    "engines.openvino.threads": "all usable cores",
    "engines.vllm.kv_cache_bytes": "vLLM decides",
    "engines.vllm.python": "the gateway's own",
    "engines.vllm.threads": "all usable cores",
    "server.environments": "all three",
}


def _defaults(shape: type[BaseModel], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, field in shape.model_fields.items():
        default = field.default
        if isinstance(default, BaseModel):
            found |= _defaults(type(default), f"{prefix}{name}.")
        else:
            found[prefix + name] = default
    return found


def _rows() -> list[re.Match[str]]:
    return list(_ROW.finditer(_DOCUMENT.read_text()))


def _documented() -> dict[str, str]:
    found: dict[str, str] = {}
    for row in _rows():
        names = re.findall(r"`([a-z_.]+)`", row["names"])
        defaults = [row["defaults"]] if len(names) == 1 else row["defaults"].split(", ")
        if len(defaults) == 1:
            defaults *= len(names)
        found |= dict(zip(names, defaults, strict=True))
    return found


def _as_written(name: str, default: Any) -> str:
    if name in _IN_WORDS:
        return _IN_WORDS[name]
    if default is None or default == ():
        return "none"
    if isinstance(default, bool):
        return str(default).lower()
    return f"{default:g}" if isinstance(default, float) else str(default)


def test_every_setting_is_documented_and_every_documented_one_is_there() -> None:
    assert set(_documented()) == set(_defaults(Settings))


def test_the_documented_defaults_are_the_real_ones() -> None:
    real = {name: _as_written(name, default) for name, default in _defaults(Settings).items()}
    assert _documented() == real
    assert Settings().server.max_body_bytes == 8 * 2**20
    assert Settings().server.max_bodies_bytes == 256 * 2**20


def test_the_fields_of_an_upstream_are_documented() -> None:
    (row,) = [row for row in _rows() if row["names"] == "`upstreams`"]
    outer = set(re.findall(r"`([a-z_]+)`", row["meaning"]))
    inner = re.search(r"`models: \[\{(.+?)\}\]`", row["meaning"])
    assert inner
    assert outer | {"models"} == set(UpstreamSettings.model_fields)
    assert set(inner[1].split(", ")) == set(UpstreamModel.model_fields)


def test_settings_cannot_be_changed_after_the_start() -> None:
    settings = Settings()
    with pytest.raises(ValidationError):
        settings.server.port = 1
    with pytest.raises(ValidationError):
        settings.log_level = "debug"


def _upstream(**fields: Any) -> dict[str, Any]:
    models = [{"alias": "a", "upstream_name": "b"}]
    return {"name": "x", "base_url": "https://example.com/v1", "models": models, **fields}


@pytest.mark.parametrize(
    "url",
    ["https://api.openai.com/v1", "http://127.0.0.1:8000/v1", "http://localhost/v1",
     "http://[::1]:9/v1", "https://example.com/v1/"],
)  # fmt: skip
def test_an_upstream_is_https_or_on_this_machine(url: str) -> None:
    settings = Settings.model_validate({"upstreams": [_upstream(base_url=url)]})
    assert settings.upstreams[0].base_url == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    ["ftp://example.com", "example.com/v1", "https://", "http://example.com/v1",
     "http://127.0.0.1.example.com/v1", "https://user:canary@example.com/v1",
     "https://example.com/v1?key=canary", "https://example.com/v1#canary",
     "https://user:can\u2100ary@example.com/v1", "https://[canary/v1",
     "https://example.com:99999/v1", "file:///etc/passwd"],
)  # fmt: skip
def test_an_upstream_that_would_leak_or_cannot_be_is_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings.model_validate({"upstreams": [_upstream(base_url=url)]})
    (problem,) = refused.value.errors(include_input=False, include_context=False)
    assert problem["loc"] == ("upstreams", 0, "base_url")
    assert "ary" not in problem["msg"]


def test_an_alias_is_given_once() -> None:
    with pytest.raises(ValidationError, match="alias 'a' is given twice"):
        Settings.model_validate({"upstreams": [_upstream(), _upstream(name="y")]})


@pytest.mark.parametrize("name", ["", "-x", "a b", "a\n", "\u00e4", "a" * 129, "$(id)"])
def test_names_are_plain(name: str) -> None:
    for fields in ({"name": name}, {"models": [{"alias": name, "upstream_name": "b"}]}):
        with pytest.raises(ValidationError):
            Settings.model_validate({"upstreams": [_upstream(**fields)]})


def test_the_engines_that_can_be_named_are_the_ones_there_are() -> None:
    from freehold.engines import registry

    field = Settings.model_fields["engines"].annotation.model_fields["default"]  # type: ignore[union-attr]
    assert set(get_args(field.annotation)) == {"auto", *registry._CREATORS}


# the database


def _database(**fields: Any) -> DatabaseSettings:
    return Settings.model_validate({"database": fields}).database


@pytest.mark.parametrize(
    "url",
    [
        "mysql://freehold@db/freehold",
        "postgresql://freehold@db",
        "postgresql://freehold@db/",
        "postgresql://freehold@db:0/freehold",
        "postgresql://freehold@db:x/freehold",
        "postgresql://freehold@db/freehold#x",
        "postgresql://freehold:hunter2@db/freehold",
        "postgresql://freehold:@db/freehold",
        "postgresql://freehold@db/freehold?password=hunter2",
        "postgresql://freehold@db/freehold?options=-crow_security=off",
        "postgresql://freehold@db/freehold?sslmode=disable",
        "postgresql://freehold@db/freehold?sslmode=prefer",
        "postgresql://freehold@db/freehold?host=/run/postgresql",
        "postgresql://freehold@/freehold?host=db.example.com",
        "postgresql://freehold@db/freehold?hunter2",
        "hunter2",
        "",
    ],
)
def test_a_database_that_cannot_be_or_must_not_be_is_refused_unquoted(url: str) -> None:
    with pytest.raises(ValidationError) as refused:
        _database(url=url)
    (error,) = refused.value.errors(include_input=False, include_url=False)
    assert error["loc"] == ("database", "url")
    assert "hunter2" not in error["msg"]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://freehold@/freehold?host=/run/postgresql",
        "postgresql://freehold@127.0.0.1:5433/freehold",
        "postgres://localhost/freehold",
        "postgresql://freehold@db/freehold?sslmode=require",
        "postgresql://freehold@db/freehold?sslmode=verify-full&sslrootcert=/etc/ca.pem",
    ],
)
def test_a_database_is_taken_as_it_is_named(url: str) -> None:
    assert _database(url=url).url == url


def test_a_database_on_another_machine_must_prove_who_it_is() -> None:
    url = _database(url="postgresql://freehold@db.example.com/freehold").url
    assert url == (
        "postgresql://freehold@db.example.com/freehold?sslmode=verify-full&sslrootcert=system"
    )
