"""How a command speaks in a terminal: whole words, however narrow it is."""

import pytest
from rich.console import Console

from freehold.cli.terminal import output

_COLUMNS = ["id", "state", "error", "train"]
_ID = "job_01M8C72ECD4QMPNKZ02NWZ6X0V"
_ROWS = [
    [_ID, "failed", "It took longer than it may: allow more.", 1200],
    ["job_2", "done", None, 3],
]


def _shown(monkeypatch: pytest.MonkeyPatch, width: int) -> list[str]:
    console = Console(width=width, highlight=False, emoji=False)
    monkeypatch.setattr(output, "console", console)
    with console.capture() as captured:
        output.table(_COLUMNS, _ROWS, "There is nothing.")
    return [line.rstrip() for line in captured.get().splitlines()]


def test_a_table_has_a_line_for_each_row_where_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    head, first, second = _shown(monkeypatch, 100)
    assert head.split() == _COLUMNS
    assert first.startswith(_ID)
    assert first.endswith("1,200")
    assert second.split() == ["job_2", "done", "3"]


def test_sentences_are_broken_before_ids_are(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = _shown(monkeypatch, 74)
    assert lines[0].split() == _COLUMNS
    assert lines[1].split()[0] == _ID
    assert lines[1].endswith("1,200")
    assert lines[2].strip() == "allow more."


def test_rows_become_paragraphs_where_not_even_words_have_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert _shown(monkeypatch, 60) == [
        f"id     {_ID}",
        "state  failed",
        "error  It took longer than it may: allow more.",
        "train  1,200",
        "",
        "id     job_2",
        "state  done",
        "train  3",
    ]


def test_what_belongs_to_one_thing_is_told_in_a_line() -> None:
    figures = {"bits": None, "learning_rate": 0.0012, "targets": ["q", "k"], "peak_bytes": 1.1e9}
    told = output.in_a_line({**figures, "trainer": "freehold", "rank": 16, "held": True})
    assert told == (
        "learning rate 0.0012, targets q k, peak bytes 1,100,000,000, trainer freehold, rank 16, "
        "held True"
    )
