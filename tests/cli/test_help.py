"""Every command explains itself, and speaks to machines."""

from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import freehold
from freehold.cli.main import app


def _commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield words
        return
    for name in inner:
        _, each, _ = command.resolve_command(typer.Context(command), [name])
        yield from _commands(each, (*words, name))


COMMANDS = list(_commands(typer.main.get_command(app)))


def test_the_commands_are_all_there() -> None:
    assert {("up",), ("model", "pull"), ("key", "create"), ("usage",)} <= set(COMMANDS)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_help_and_json(words: tuple[str, ...]) -> None:
    told = CliRunner().invoke(app, [*words, "--help"])
    assert told.exit_code == 0
    assert "--json" in told.stdout
    assert told.stdout.strip().splitlines()[2].strip(), "what it does"


def test_the_version_is_an_option_too() -> None:
    told = CliRunner().invoke(app, ["--version"])
    assert (told.exit_code, told.stdout.strip()) == (0, freehold.__version__)


def test_a_word_that_is_none_of_those_allowed_is_told_with_them() -> None:
    told = CliRunner().invoke(app, ["tune", "list", "--env", "live"])
    assert told.exit_code == 2
    assert told.stderr.splitlines()[-1] == (
        "Error: Invalid value for '--env' / '--environment': "
        "'live' is not one of 'dev', 'staging', 'prod'."
    )
