"""Tests of what needs PyTorch, and of what it is compared with: `make test-tune`, in an
environment of its own. Elsewhere there are none, and those of a GPU only where there is one."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.installation import Installation, share, start


def _left_out() -> list[str]:
    if find_spec("torch") is None:
        return ["test_*.py"]
    import torch

    return [] if torch.cuda.is_available() else ["test_*_gpu.py"]


collect_ignore_glob = _left_out()


@pytest.fixture
def house(stored: Path, tmp_path: Path) -> Iterator[Installation]:
    """A gateway of its own, with the model of the first start."""
    home = tmp_path / "home"
    home.mkdir()
    share(stored, home)
    running = start(home)
    yield running
    running.kill()
