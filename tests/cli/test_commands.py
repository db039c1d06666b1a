"""Commands are imported when they are named, and with no more than they need."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from freehold.cli.commands import COMMANDS, Commands, loaded
from freehold.cli.main import app
from tests.installation import Installation, environment_of

# Runs commands in one process, and says which modules were there after each.
_RUN = """
import json, sys
from freehold.cli.main import app
for words in json.loads(sys.argv[1]):
    try:
        app(words)
    except SystemExit as ended:
        told = [words, ended.code, sorted(sys.modules)]
        print(json.dumps(told), file=sys.stderr)
"""
_OF_A_STORE = {"sqlalchemy", "alembic", "mako", "cryptography", "yaml", "numpy"}
_OF_A_GATEWAY = {"uvicorn", "aiohttp", "starlette", "jinja2", "jwt", "prometheus_client", "psutil"}
_OF_EVERY_CALL = {"pydantic", "httpx2"}
_ASKING = [
    ["key", "list"],
    ["key", "rotate", "key_none"],
    ["key", "revoke", "key_none"],
    ["usage"],
    ["events"],
    ["forget", "nobody"],
    ["tenant", "list"],
    ["tenant", "show", "default"],
    ["tenant", "rm", "nobody"],
    ["route", "list"],
    ["route", "show", "none"],
    ["adapter", "list"],
    ["limit", "list"],
    ["limit", "rm", "lim_none"],
    ["price", "list"],
    ["role", "list"],
    ["session", "list"],
    ["policy", "list"],
    ["policy", "explain", "--group", "nobody"],
    ["audit", "list"],
    ["audit", "content", "req_none"],
    ["whoami"],
    ["status"],
    ["chat", "hello", "--max-tokens", "4"],
    ["down", "--help"],
]


def _modules(
    environment: dict[str, str], commands: Sequence[Sequence[str]]
) -> list[tuple[list[str], int, set[str]]]:
    ran = subprocess.run(
        [sys.executable, "-c", _RUN, json.dumps(commands)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    told = [json.loads(line) for line in ran.stderr.splitlines() if line.startswith("[[")]
    return [(words, code, set(modules)) for words, code, modules in told]


def test_the_list_of_commands_takes_nothing_that_a_command_needs(served: Installation) -> None:
    ((_, code, modules),) = _modules(environment_of(served.home), [["--help"]])
    assert code == 0
    assert not modules & (_OF_A_STORE | _OF_A_GATEWAY | _OF_EVERY_CALL)
    assert "freehold.cli.key" not in modules


def test_what_only_asks_a_running_gateway_opens_no_store(served: Installation) -> None:
    told = _modules(environment_of(served.home), _ASKING)
    assert [words for words, _, _ in told] == _ASKING
    codes = {" ".join(words): code for words, code, _ in told}
    assert codes["key list"] == codes["chat hello --max-tokens 4"] == codes["usage"] == 0
    assert 2 not in codes.values(), "each is a command, as it is written here"
    for words, _, modules in told:
        assert not modules & (_OF_A_STORE | _OF_A_GATEWAY), words


def test_a_home_at_rest_is_opened_without_what_serves_and_what_upgrades(tmp_path: Path) -> None:
    environment = environment_of(tmp_path / "home")
    ((_, made, first),) = _modules(environment, [["key", "create", "one"]])
    ((_, read, then),) = _modules(environment, [["key", "list"]])
    assert made == read == 0
    assert "alembic" in first, "the tables were made"
    assert "sqlalchemy" in then
    assert not then & {"alembic", "mako", "numpy", "httpx2", *_OF_A_GATEWAY}


def test_a_start_takes_up_nothing_that_only_some_starts_need(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", "import sys, freehold.cli.up; print(*sys.modules)"],
        env=environment_of(tmp_path),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    modules = set(ran.stdout.split())
    assert "uvicorn" in modules
    rare = {"alembic", "mako", "numpy", "jinja2", "httpx2", "freehold.serve.openapi.document"}
    assert not modules & rare


@pytest.mark.parametrize("name", COMMANDS)
def test_what_the_list_says_of_a_command_is_what_it_says_itself(name: str) -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, Commands)
    listed = group.commands[name]
    for width in (20, 45, 66, 1000):
        assert listed.get_short_help_str(width) == loaded(name).get_short_help_str(width)
    assert COMMANDS[name].summary == loaded(name).get_short_help_str(1000)


def test_a_mistyped_command_is_told_what_was_meant() -> None:
    refused = CliRunner().invoke(app, ["statsu"])
    assert refused.exit_code == 2
    assert "No such command 'statsu'. Did you mean 'status'?" in refused.stderr


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("freehold ke", {"key"}),
        ("freehold key cr", {"create"}),
        ("freehold key create --scope in", {"infer"}),
    ],
)
def test_the_shell_completes_what_was_begun(words: str, offered: set[str]) -> None:
    asked = {
        "_FREEHOLD_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    told = CliRunner().invoke(app, env=asked, prog_name="freehold")
    assert set(told.stdout.split()) == offered
