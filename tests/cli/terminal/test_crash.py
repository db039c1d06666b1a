"""What nobody foresaw: one sentence for the person, the traceback in a private file."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from freehold.cli.terminal import crash

_MAIN = """
import sys
import freehold.cli.main as main

def app():
    {}

main.app = app
main.main()
"""


def _main(home: Path, line: str, **options: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", _MAIN.format(line)], check=False, text=True, capture_output=True,
        env={**os.environ, "FREEHOLD_HOME": str(home)}, **options,  # type: ignore[call-overload]
    )  # fmt: skip


def test_a_surprise_is_told_in_one_sentence_and_kept_for_its_owner(tmp_path: Path) -> None:
    home = tmp_path / "[/b] home"
    ended = _main(home, "raise ZeroDivisionError('canary-4711')")
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    report = home / "logs" / "crash.txt"
    assert "ZeroDivisionError" in line
    assert str(report) in line
    assert "canary-4711" not in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
    assert "ZeroDivisionError: canary-4711" in report.read_text()
    assert stat.S_IMODE(report.stat().st_mode) == 0o600


def test_without_a_place_for_the_report_the_errors_name_must_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").write_text("a file")
    monkeypatch.setenv("FREEHOLD_HOME", str(tmp_path / "home"))
    assert crash.report(KeyError("canary")) == "Something unforeseen happened (KeyError)."


def test_an_interrupt_ends_with_130_and_no_words(tmp_path: Path) -> None:
    ended = _main(tmp_path, "raise KeyboardInterrupt")
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")
    assert not (tmp_path / "logs").exists()


def test_a_reader_that_left_is_no_surprise(tmp_path: Path) -> None:
    ended = _main(tmp_path, "raise BrokenPipeError")
    assert (ended.returncode, ended.stderr) == (1, "")
    assert not (tmp_path / "logs").exists()


def test_what_is_written_by_any_command_is_for_its_owner(tmp_path: Path) -> None:
    _main(tmp_path, "open(sys.argv[0] and 'made', 'w').close()", cwd=tmp_path)
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("closed", "words", "told"),
    [("<&-", "decide init", "nobody to ask"), (">&-", "version", ""), ("2>&-", "version", "")],
)
def test_a_stream_that_is_closed_is_no_surprise(
    tmp_path: Path, closed: str, words: str, told: str
) -> None:
    ended = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m freehold.cli.main {words} {closed}"], check=False,
        cwd=tmp_path, text=True, capture_output=True,
        env={**os.environ, "FREEHOLD_HOME": str(tmp_path)},
    )  # fmt: skip
    assert ended.returncode == bool(told)
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "logs").exists()
