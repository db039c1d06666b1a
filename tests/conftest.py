"""What tests of several folders share: started once a session, when first wanted.

`make test` runs the tests in several processes at once; one alone works as well.
"""

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests import postgres
from tests.installation import First, Installation, start


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        from tests.spread import take_share_of_cores

        take_share_of_cores(config.workerinput["workerid"], config.workerinput["workercount"])


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """How upstreams are reached is tried on the loop that gateways run on. The others' end with
    what a test left open; closing that one then waits for ever, now and then."""
    if item.path.name == "test_origin.py":
        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from tests.spread import Parts

    return Parts(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        from tests.spread import place

        items.sort(key=lambda item: place(item.nodeid))


@pytest.fixture(scope="session")
def first(tmp_path_factory: pytest.TempPathFactory) -> First:
    """Of all processes of this run, which have a folder each in one that they share."""
    folder = tmp_path_factory.getbasetemp()
    return First(folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder)


@pytest.fixture(scope="session")
def installation(first: First, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    running = first.start(tmp_path_factory.mktemp("home"))
    yield running
    running.stop()


@pytest.fixture(scope="session")
def stored(first: First, request: pytest.FixtureRequest) -> Path:
    """A home that has the model of the first start, for tests that want no gateway of it."""
    if not first.is_made():
        request.getfixturevalue("installation")
    return first.home


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[postgres.Server]:
    """One for all processes of this run."""
    folder = tmp_path_factory.getbasetemp()
    running = postgres.start(folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder)
    yield running
    running.process.cleanup()


@pytest.fixture
def postgres_database(
    postgres_server: postgres.Server,
) -> Iterator[Callable[[], postgres.Postgres]]:
    made: list[postgres.Postgres] = []

    def new() -> postgres.Postgres:
        made.append(postgres_server.new())
        return made[-1]

    yield new
    for each in made:
        postgres_server.drop(each)


@pytest.fixture
def begin() -> Iterator[Callable[..., Installation]]:
    """`start`, for gateways that a test need not end."""
    begun: list[Installation] = []

    def begin(*arguments: Any, **options: Any) -> Installation:
        begun.append(start(*arguments, **options))
        return begun[-1]

    yield begin
    for installation in begun:
        installation.kill()
