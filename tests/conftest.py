"""What tests of several folders share: started once a session, when first wanted."""

from collections.abc import Iterator

import pytest

from tests.installation import Installation, start


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    running = start(tmp_path_factory.mktemp("home"))
    yield running
    running.stop()
