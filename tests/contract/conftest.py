"""Every engine in turn. A later one joins by a file in `engines/` and a line here."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.contract.engines import fake, llama_cpp, openvino, remote, vllm
from tests.contract.entry import Entry, Place, Running

ENTRIES: tuple[Entry, ...] = (llama_cpp.Entry(), openvino.Entry(), fake.Entry(), remote.Entry())
# It is large and starts in minutes: collected only where an interpreter with it is named.
collect_ignore = [] if vllm.PYTHON else ["test_vllm.py"]
_ASKED_FOR = [pytest.param(vllm.ENTRY, marks=pytest.mark.slow)] if vllm.PYTHON else []


@pytest.fixture(scope="session", params=[*ENTRIES, *_ASKED_FOR], ids=lambda entry: entry.name)
def entry(request: pytest.FixtureRequest) -> Entry:
    found: Entry = request.param
    return found


@pytest.fixture(scope="session")
def place(
    stored: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Place:
    return Place(
        stored,
        lambda: request.getfixturevalue("installation"),
        tmp_path_factory.mktemp("contract"),
    )


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def running(entry: Entry, place: Place) -> AsyncIterator[Running]:
    async with entry.serving(place) as serving:
        yield serving


@pytest_asyncio.fixture(loop_scope="session")
async def expendable(entry: Entry, place: Place) -> AsyncIterator[Running]:
    async with entry.expendable(place) as one:
        yield one
