"""What a command said with `--json`."""

import json
from typing import Any

from click.testing import Result

from tests.cli.conftest import Run


def failed(ended: Result, code: str) -> str:
    """The sentence of an error with that code."""
    assert ended.exit_code == 1, ended.output
    error = json.loads(ended.stdout)["error"]
    assert error["code"] == code, error
    return str(error["message"])


def said(run: Run, *words: str) -> Any:
    ended = run(*words, "--json")
    assert ended.exit_code == 0, ended.output
    return json.loads(ended.stdout)
