"""The worked example of the documentation runs, and says what it said."""

import re
from pathlib import Path

import pytest

from tests.decide.notebook import read, run, stored

_NOTEBOOK = read(Path(__file__).parents[2] / "docs" / "decide" / "worked_example.ipynb")
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
_WRITE = "write it anew: python -m tests.decide.notebook docs/decide/worked_example.ipynb"


def figures(text: str) -> list[float]:
    return [float(each.replace(",", "")) for each in _NUMBER.findall(text)]


def words(text: str) -> list[str]:
    return _NUMBER.sub("", text).split()


@pytest.mark.slow
def test_the_worked_example_comes_out_as_it_is_stored() -> None:
    before, now = stored(_NOTEBOOK), run(_NOTEBOOK)
    assert sum(map(bool, before)) >= 8
    for old, new in zip(before, now, strict=True):
        assert words(new) == words(old), _WRITE
        assert figures(new) == pytest.approx(figures(old), rel=0.05, abs=1), _WRITE
    assert len(json_of(_NOTEBOOK)) < 60_000


def json_of(notebook: dict[str, object]) -> str:
    return str(notebook)
