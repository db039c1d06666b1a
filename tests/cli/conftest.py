"""Homes to run commands on: one that a gateway serves, and one that rests."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from freehold.cli.main import app
from tests.installation import Installation, start, stock_tiny

Run = Callable[..., Result]


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A real `freehold up` with the fake engine and the model `tiny`."""
    home = tmp_path_factory.mktemp("served")
    stock_tiny(home)
    running = start(home, "--engine", "fake", "--model", "tiny")
    yield running
    running.stop()


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Run]:
    """Runs `freehold` on the home that is given."""

    def on(home: Path) -> Run:
        def run(*words: str, **options: object) -> Result:
            monkeypatch.setenv("FREEHOLD_HOME", str(home))
            monkeypatch.delenv("FREEHOLD_API_KEY", raising=False)
            return CliRunner().invoke(app, words, **options)  # type: ignore[arg-type]

        return run

    return on


@pytest.fixture
def online(served: Installation, commands: Callable[[Path], Run]) -> Run:
    return commands(served.home)


@pytest.fixture
def offline(tmp_path: Path, commands: Callable[[Path], Run]) -> Run:
    return commands(tmp_path / "home")


@pytest.fixture(params=["online", "offline"])
def run(request: pytest.FixtureRequest) -> Run:
    """The same command on a home that is served and on one that is not."""
    found: Run = request.getfixturevalue(request.param)
    return found
