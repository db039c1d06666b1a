"""What tests of several folders share: started once a session, when first wanted."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.installation import Installation, start


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    running = start(tmp_path_factory.mktemp("home"))
    yield running
    running.stop()


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
