"""Settings from a file, the environment and options: which one counts, and what is said
about one that is wrong."""

import contextlib
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from freehold.config import load
from freehold.config.schema import ModelPrice, Settings, WebhookSettings
from freehold.core.binding import Environment
from freehold.core.departure import OnDeparture
from freehold.core.errors import Code, UserError


def _file(folder: Path, text: str) -> Path:
    path = folder / "freehold.yaml"
    path.write_text(text)
    return path


def _refused(where: Path, environ: dict[str, str], **overrides: Any) -> str:
    with pytest.raises(UserError) as refused:
        load.settings(where, environ, overrides)
    assert refused.value.code is Code.CONFIG_INVALID
    assert "\n" not in refused.value.message
    return refused.value.message


def test_without_a_file_everything_has_its_default(tmp_path: Path) -> None:
    assert load.settings(tmp_path / "none", {}) == Settings()
    assert load.settings(_file(tmp_path, ""), {}) == Settings()
    assert load.settings(_file(tmp_path, "# nothing\n"), {}) == Settings()


def test_options_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    where = _file(tmp_path, "server: {port: 1, host: '::1', drain_s: 5}\n")
    environ = {"FREEHOLD_SERVER__PORT": "2", "FREEHOLD_SERVER__HOST": "localhost"}

    server = load.settings(where, environ, {"server.port": 3, "server.host": None}).server

    assert (server.port, server.host, server.drain_s) == (3, "localhost", 5)


def _leaves(shape: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name in type(shape).model_fields:
        value = getattr(shape, name)
        if isinstance(value, BaseModel):
            yield from _leaves(value, f"{prefix}{name}.")
        elif prefix:
            yield prefix + name, value


_OTHERS: dict[str, tuple[str, Any]] = {
    "database.url": ("postgresql://localhost/x", "postgresql://localhost/x"),
    "engines.llama_cpp.threads": ("9", 9),
    "engines.openvino.threads": ("9", 9),
    "engines.openvino.weights": ("int4", "int4"),
    "engines.openvino.kv_cache": ("bf16", "bf16"),
    "engines.vllm.dtype": ("float16", "float16"),
    "supply.require_signature": ("[prod]", ("prod",)),
    "engines.vllm.kv_cache_bytes": ("9000000", 9_000_000),
    "engines.vllm.threads": ("9", 9),
    "tune.priority": ("low", "low"),
    "tune.threads": ("9", 9),
    "prices.for_a_dollar": ("0.9", Decimal("0.9")),
    "prices.machine.per_hour": ("0.5", Decimal("0.5")),
    "prices.machine.per_kwh": ("0.3", Decimal("0.3")),
    "prices.machine.per_month": ("9", Decimal(9)),
    "prices.machine.purchase": ("9000", Decimal(9000)),
    "prices.models": (
        "[{model: a, input: 1}]", (ModelPrice(model="a", input=Decimal(1)),)
    ),
    "server.client_certificates": ("optional", "optional"),
    "patterns.on_departure": ("suspend", OnDeparture.SUSPEND),
    "audit.may_fail": ("[copies]", ("copies",)),
    "backup.every_h": ("9", 9),
    "events.webhooks": (
        "[{url: 'https://a', secret_file: b}]",
        (WebhookSettings(url="https://a", secret_file="b"),),
    ),
    "server.public_url": ("'https://llm.example.com'", "https://llm.example.com"),
    "server.environments": ("[prod]", (Environment.PROD,)),
    "server.trusted_proxies": ("[10.0.0.0/8]", ("10.0.0.0/8",)),
}  # fmt: skip


def _other(value: Any) -> tuple[str, Any]:
    """What a setting can have instead of its default."""
    if isinstance(value, bool):
        return "true", True
    if isinstance(value, int):
        return str(value + 1), value + 1
    if isinstance(value, float):
        return str(value / 2), value / 2
    other: dict[type, tuple[str, Any]] = {
        str: ("fake", "fake"), tuple: ("[a, b]", ("a", "b")), type(None): ("'9'", "9"),
    }  # fmt: skip
    return other[type(value)]


@pytest.mark.parametrize("name", [name for name, _ in _leaves(Settings())])
def test_every_setting_in_a_section_can_come_from_the_environment(name: str) -> None:
    value = dict(_leaves(Settings()))[name]
    text, expected = _OTHERS.get(name) or _other(value)
    variable = "FREEHOLD_" + name.replace(".", "__").upper()

    changed = dict(_leaves(load.settings(Path("/none"), {variable: text})))

    assert changed[name] == expected
    others = dict(_leaves(Settings())) | {name: expected}
    assert changed == others


@pytest.mark.parametrize(
    ("variable", "text", "name", "value"),
    [("CURRENCY", "EUR", "currency", "EUR"), ("LOG_LEVEL", "debug", "log_level", "debug"),
     ("MODELS", "[a, b]", "models", ("a", "b"))],
)  # fmt: skip
def test_a_setting_in_no_section_can_come_from_the_environment(
    variable: str, text: str, name: str, value: Any
) -> None:
    found = load.settings(Path("/none"), {f"FREEHOLD_{variable}": text})

    assert getattr(found, name) == value


def test_other_variables_are_left_alone() -> None:
    environ = {"FREEHOLD_HOME": "/x", "FREEHOLD_API_KEY": "y", "SERVER__PORT": "1", "PORT": "1"}
    assert load.settings(Path("/none"), environ) == Settings()


@pytest.mark.parametrize(
    ("text", "key"),
    [("sever: {port: 1}", "'sever'"), ("server: {prot: 1}", "'server.prot'"),
     ("engines: {llama_cpp: {thread: 1}}", "'engines.llama_cpp.thread'"),
     ("upstreams: [{name: a, base_url: https://h/, key: sk-canary, "
      "models: [{alias: a, upstream_name: b}]}]", "'upstreams.0.key'")],
)  # fmt: skip
def test_an_unknown_name_stops_the_start_and_is_named(tmp_path: Path, text: str, key: str) -> None:
    message = _refused(_file(tmp_path, text), {})
    assert f"there is no setting {key}" in message
    assert str(tmp_path / "freehold.yaml") in message
    assert "canary" not in message


@pytest.mark.parametrize(
    ("text", "key"),
    [("server: {port: canary}", "server.port"), ("server: {port: 65536}", "server.port"),
     ("server: canary", "server"), ("limits: {queue_s: 0}", "limits.queue_s"),
     ("limits: {queue_s: .nan}", "limits.queue_s"), ("log_level: canary", "log_level"),
     ("engines: {default: canary}", "engines.default"), ("models: canary", "models"),
     ("models: [1]", "models.0"), ("server: {allowed_hosts: canary}", "server.allowed_hosts"),
     ("currency: canary", "currency"), ("upstreams: {canary: 1}", "upstreams"),
     ("patterns: {on_departure: canary}", "patterns.on_departure"),
     ("patterns: {on_departure: default}", "patterns.on_departure"),
     ("upstreams: [{name: a, base_url: 'https://u:canary@h/', models: [{alias: a, "
      "upstream_name: b}]}]", "upstreams.0.base_url"), ("{7: 1}", "7")],
)  # fmt: skip
def test_a_wrong_value_is_named_by_its_key_and_never_shown(
    tmp_path: Path, text: str, key: str
) -> None:
    message = _refused(_file(tmp_path, text), {})
    assert f": {key}: " in message
    assert "canary" not in message


@pytest.mark.parametrize(
    "content",
    [b"server: {port: 1", b"\x00", b"\xff\xfe\xfa", b"a: *b", b"when: 2024-13-45",
     b"server: {port: !!int x}", b"a: !!python/object/apply:os.system [id]", b"- a", b"7"],
)  # fmt: skip
def test_a_file_that_is_no_settings_is_told_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "freehold.yaml"
    path.write_bytes(content)
    assert str(path) in _refused(path, {})


def test_the_line_of_a_slip_is_told(tmp_path: Path) -> None:
    assert "line 3" in _refused(
        _file(tmp_path, "server:\n  port: 1\n  host: @x\n  drain_s: 2\n"), {}
    )


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    assert "cannot be read (Is a directory)" in _refused(tmp_path, {})


@pytest.mark.parametrize("value", ["*", "[::1", "@x", "!!int x", "2024-13-45", "'"])
def test_a_variable_that_is_no_yaml_is_named(value: str) -> None:
    message = _refused(Path("/none"), {"FREEHOLD_SERVER__HOST": value})
    assert "FREEHOLD_SERVER__HOST" in message


def test_a_variable_below_a_value_names_no_setting() -> None:
    _refused(Path("/none"), {"FREEHOLD_SERVER__PORT": "5", "FREEHOLD_SERVER__PORT__X": "1"})


@given(st.text(max_size=40))
def test_no_value_of_a_variable_crashes_the_start(text: str) -> None:
    with contextlib.suppress(UserError):
        load.settings(Path("/none"), {"FREEHOLD_SERVER__PORT": text})


def test_the_home_is_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert load.home({}).path == tmp_path / ".freehold"
    assert load.home({"FREEHOLD_HOME": ""}).path == tmp_path / ".freehold"
    assert load.home({"FREEHOLD_HOME": "~/x"}).path == tmp_path / "x"
    assert load.home({"FREEHOLD_HOME": "here"}).path == tmp_path / "here"
